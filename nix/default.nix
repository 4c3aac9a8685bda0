# Images as Nix values: a spec that Firn makes the image of, and programs that push it.
#
#   firn = import ./nix { inherit pkgs; };
#   app = firn.buildImage { name = "app"; config.Entrypoint = [ "${pkgs.hello}/bin/hello" ]; };
#
# No image is built: what is in the Nix store is a JSON document with the paths that it names. Without `pkgs` the few
# builders use /bin/sh, and mkdir and chmod of the machine, so they want builds without a sandbox.
# docs/nix-library.md has the arguments, next to those of dockerTools and nix2container.
{
  pkgs ? null,
  system ? if pkgs == null then builtins.currentSystem else pkgs.stdenv.hostPlatform.system,
  # The program: a package, the path of a binary, or a name to be found in PATH when an image is pushed.
  firn ? "firn",
}:
let
  build = import ./build.nix { inherit pkgs system; };
  programs = import ./programs.nix { inherit build; };

  binary = if builtins.isAttrs firn then "${firn}/bin/firn" else toString firn;
  inherit (import ./spec.nix) specOf;

  buildImage =
    args@{
      name,
      tag ? null,
      passthru ? { },
      meta ? { },
      ...
    }:
    let
      imageTag = if tag == null then "latest" else tag;
      fields = specOf (
        builtins.removeAttrs args [
          "passthru"
          "meta"
        ]
        // {
          tag = imageTag;
        }
      );
      # "ghcr.io/acme/app" is a name for a registry, and not for a store path.
      label = builtins.replaceStrings [ "/" ":" "@" ] [ "-" "-" "-" ] name;
      spec = build.spec "image-${label}.json" fields;
      program = programs.of {
        inherit binary spec;
        image = "${name}:${imageTag}";
      };
    in
    spec
    // {
      inherit
        passthru
        meta
        spec
        imageTag
        ;
      imageName = name;
      # Programs: `nix run .#app.copyToRegistry -- --dest-creds USER:TOKEN ghcr.io/acme/app:1`.
      copyToRegistry = program "copy-to-registry";
      copyToDockerDaemon = program "copy-to-docker-daemon";
      copyToPodman = program "copy-to-podman";
      copyTo = program "copy-to";
      toArchive = program "to-archive";
      # What `nix build` makes a docker-archive of, as dockerTools' result is one.
      archive = build.archive "image-${label}.tar" { inherit binary spec; };
    }
    // passthru;
in
{
  inherit buildImage;

  # As nix2container has it: a group of paths that has layers of its own.
  buildLayer =
    {
      deps ? [ ],
      maxLayers ? 1,
    }:
    {
      inherit deps maxLayers;
    };

  # As dockerTools and nix2container have it, but nothing is pulled before it is needed.
  pullImage =
    { imageName, imageDigest, ... }:
    "${imageName}@${imageDigest}";
}

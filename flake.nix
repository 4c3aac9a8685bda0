{
  description = "Firn: images whose layers move the fewest bytes, on any registry";

  # No inputs: nixpkgs comes from whoever uses this.
  outputs =
    { self }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      each = builtins.map (system: {
        name = system;
        value = import ./nix { inherit system; };
      }) systems;
    in
    {
      lib = builtins.listToAttrs each // {
        # { pkgs ? null, system ? …, firn ? "firn" } to { buildImage, buildLayer, pullImage }.
        new = import ./nix;
      };
    };
}

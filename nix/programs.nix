# The programs of an image: small scripts around `firn image push|load|build --spec`.
{ build }:
let
  # What is no option and no option's value is where the image goes. Options without a value are named here, being
  # the fewer ones; all others have one.
  options = ''
    to=
    count=$#
    while [ "$count" -gt 0 ]; do
      count=$((count - 1))
      argument=$1
      shift
      case $argument in
        --json|--help|-h|--nix-database|--no-*|--*=*)
          set -- "$@" "$argument" ;;
        -*)
          if [ "$count" -eq 0 ]; then echo "error: $argument wants a value" >&2; exit 2; fi
          count=$((count - 1))
          value=$1
          shift
          set -- "$@" "$argument" "$value" ;;
        *)
          if [ -n "$to" ]; then echo "error: $to and $argument are two places" >&2; exit 2; fi
          to=$argument ;;
      esac
    done
  '';
  quoted = text: "'" + builtins.replaceStrings [ "'" ] [ "'\\''" ] text + "'";
in
{
  of =
    {
      binary,
      spec,
      image,
    }:
    let
      firn = "exec ${quoted binary} image";
      push = "${firn} push --spec ${spec}";
      load = into: "${firn} load --spec ${spec} --into ${into}";
      archive = format: ''${firn} build --spec ${spec} --format ${format} --output "$to"'';
      body = {
        copy-to-registry = ''
          to=''${to#docker://}
          ${push} --to "''${to:-"$image"}" "$@"
        '';
        copy-to-docker-daemon = ''
          ${load "docker"} ''${to:+--name "$to"} "$@"
        '';
        copy-to-podman = ''
          ${load "podman"} ''${to:+--name "$to"} "$@"
        '';
        to-archive = ''
          to=''${to:-image.tar}
          ${archive "docker-archive"} "$@"
        '';
        # skopeo's names of places.
        copy-to = ''
          case $to in
            docker://*) to=''${to#docker://}; ${push} --to "$to" "$@" ;;
            docker-daemon:*) to=''${to#*:}; ${load "docker"} --name "$to" "$@" ;;
            containers-storage:*) to=''${to#*:}; ${load "podman"} --name "$to" "$@" ;;
            docker-archive:*) to=''${to#*:}; ${archive "docker-archive"} "$@" ;;
            oci-archive:*) to=''${to#*:}; ${archive "oci-archive"} "$@" ;;
            oci:*) to=''${to#*:}; ${archive "oci"} "$@" ;;
            *) echo "error: $to is no docker://, docker-daemon:, containers-storage:, docker-archive:, oci-archive: or oci: place" >&2; exit 2 ;;
          esac
        '';
      };
    in
    name:
    build.program name ''
      #!${build.shell}
      set -eu
      image=${quoted image}
      ${options}
      ${body.${name}}
    '';
}

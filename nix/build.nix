# Derivations, with nixpkgs' tools or with those of the machine.
{ pkgs, system }:
let
  shell = if pkgs == null then "/bin/sh" else "${pkgs.runtimeShell}";
  tools = if pkgs == null then "/usr/bin:/bin" else "${pkgs.coreutils}/bin";

  # The spec, as one line of JSON; it refers to all that the image needs.
  document =
    name: fields:
    derivation {
      inherit name system;
      builder = shell;
      text = builtins.toJSON fields;
      # In a file: an environment is short.
      passAsFile = [ "text" ];
      args = [
        "-c"
        ''IFS= read -r text < "$textPath" || :; printf '%s\n' "$text" > "$out"''
      ];
    };
in
{
  inherit shell;

  # The spec with what Nix knows of the paths, so that no database is asked. Nix writes the graph of what
  # `document` refers to into .attrs.json, whose members are in the order of their names; names of store
  # paths have no quotes.
  spec =
    name: fields:
    let
      conf = document "conf-${name}" fields;
    in
    derivation {
      inherit name system conf;
      builder = shell;
      __structuredAttrs = true;
      exportReferencesGraph.closure = [ conf ];
      args = [
        "-c"
        ''
          IFS= read -r all < "''${NIX_ATTRS_JSON_FILE:-.attrs.json}" || :
          IFS= read -r spec < ${conf}
          closure=''${all#*'"closure":'}
          closure=''${closure%%',"conf":'*}
          out=''${all#*'"outputs":{"out":"'}
          out=''${out%%'"'*}
          case $closure in '[{'*'}]') ;; *) echo "Nix wrote no closure" >&2; exit 1 ;; esac
          printf '%s,"closure":%s}\n' "''${spec%?}" "$closure" > "$out"
        ''
      ];
    };

  # A program in bin.
  program =
    name: text:
    derivation {
      inherit name system text;
      builder = shell;
      PATH = tools;
      passAsFile = [ "text" ];
      args = [
        "-ec"
        ''mkdir -p "$out/bin"; cp "$textPath" "$out/bin/${name}"; chmod 755 "$out/bin/${name}"''
      ];
    }
    // {
      meta.mainProgram = name;
    };

  archive =
    name:
    { binary, spec }:
    if builtins.substring 0 1 binary != "/" then
      throw "firn.buildImage: `archive` is made in a build, so firn has to be a package or the path of a binary"
    else
      derivation {
        inherit name system;
        builder = shell;
        args = [
          "-c"
          ''HOME=$PWD exec ${binary} image build --spec ${spec} --format docker-archive --output "$out"''
        ];
      };
}

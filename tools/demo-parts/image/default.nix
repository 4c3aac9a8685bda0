# The image of `make demo`, with the six contents of a usual one: certificates, busybox, curl,
# ffmpeg (on request), an application that is compiled here, and an entrypoint.
#
#   packages  JSON of [{ name, version, tree, dependencies }], dependencies first: Debian packages
#             unpacked into the store, to become store paths that refer to each other
#   builder   the script that makes a store path of one
#   programs  which of them the image is for: "curl", or "curl ffmpeg"
#   app       folder of the application's source
#   updated   names of packages that got an update, as JSON
{ packages, builder, programs, app, updated ? "[ ]" }:
let
  list = builtins.fromJSON (builtins.readFile packages);
  isUpdated = package: builtins.elem package.name (builtins.fromJSON updated);

  # The compiler and the tools are the machine's own, so that the demo needs no nixpkgs.
  make = name: attributes: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    LC_ALL = "C";
  } // attributes);

  script = name: attributes: text: make name (attributes // { args = [ "-euc" text ]; });

  # One Debian package is one store path; what it depends on are its references.
  debian = builtins.foldl' (made: package: made // {
    ${package.name} = make "${package.name}-${package.version}" {
      src = builtins.storePath package.tree;
      deps = map (name: made.${name}) package.dependencies;
      extra = if isUpdated package then "updated" else "";
      args = [ (builtins.path { path = builder; name = "builder"; }) ];
    };
  }) { } list;

  tree = name: builtins.storePath (builtins.head (builtins.filter (package: package.name == name) list)).tree;
  words = text: builtins.filter builtins.isString (builtins.split " " text);
in
rec {
  inherit debian;

  cacert = script "cacert" { src = tree "ca-certificates"; } ''
    mkdir -p $out/etc/ssl/certs
    find $src/usr/share/ca-certificates -name '*.crt' | sort | xargs cat > $out/etc/ssl/certs/ca-bundle.crt
  '';

  busybox = script "busybox" { src = tree "busybox-static"; } ''
    mkdir -p $out/bin
    cp $src/bin/busybox $out/bin/
    for applet in $($out/bin/busybox --list); do
      [ $applet = busybox ] || ln -s busybox $out/bin/$applet
    done
  '';

  application = script "app" {
    src = builtins.path { path = app; name = "app-source"; };
    libc = debian.libc6;
    channels = 16;
  } ''
    cp $src/* .
    python3 generate.py $channels
    ls *.c | xargs -P "$(nproc)" -n 1 gcc -O2 -c
    mkdir -p $out/bin
    gcc -o $out/bin/app *.o -Wl,-rpath,$libc/lib/x86_64-linux-gnu \
      -Wl,--dynamic-linker=$libc/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
  '';

  entrypoint = script "entrypoint" {
    inherit cacert busybox application;
    inherit (debian) curl;
    src = ./entrypoint.sh;
  } ''
    mkdir -p $out/bin
    sed -e "s|@cacert@|$cacert|" -e "s|@busybox@|$busybox|" -e "s|@application@|$application|" \
      -e "s|@curl@|$curl|" $src > $out/bin/entrypoint
    chmod +x $out/bin/entrypoint
  '';

  # What `bin` and `etc` at the root of the image show.
  contents = script "demo-image" {
    inherit cacert busybox application entrypoint;
    programs = map (name: debian.${name}) (words programs);
  } ''
    mkdir -p $out/bin $out/etc
    for program in $programs; do ln -s $program/usr/bin/* $out/bin/; done
    for applet in $busybox/bin/*; do [ -e $out/bin/''${applet##*/} ] || ln -s $applet $out/bin/; done
    ln -s $application/bin/app $entrypoint/bin/entrypoint $out/bin/
    ln -s $cacert/etc/ssl $out/etc/ssl
  '';
}

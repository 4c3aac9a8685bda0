# From buildImage's arguments to the fields of an image spec (docs/image-spec.md).
let
  # Attributes of other libraries that mean the same.
  renamed = {
    arch = "architecture";
    initializeNixDatabase = "includeNixDB";
    compressor = "compression";
  };
  # What dockerTools and nix2container take and Firn has no need of.
  needless = [
    "diskSize"
    "buildVMMemorySize"
    "keepContentsDirlinks"
    "enableFakechroot"
    "nixUid"
    "nixGid"
    "streamLayeredImage"
  ];
  # What runs commands when an image is made.
  commands = [
    "extraCommands"
    "fakeRootCommands"
    "runAsRoot"
  ];

  listOf = value: if builtins.isList value then value else [ value ];
  # A path of the machine is copied into the store; a text such as "debian:12" stays one.
  toText = value: if builtins.isPath value || builtins.isAttrs value then "${value}" else value;

  convert = {
    contents = value: builtins.map toText (listOf value);
    copyToRoot = value: builtins.map toText (listOf value);
    fromImage = toText;
    compression = value: if value == "gz" then "gzip" else value;
    layers = builtins.map (
      layer: if layer ? deps then layer // { deps = builtins.map toText layer.deps; } else layer
    );
    perms = builtins.map (rule: if rule ? path then rule // { path = toText rule.path; } else rule);
  };
  field =
    args: name:
    let
      value = args.${name};
      to = renamed.${name} or name;
    in
    {
      name = to;
      value = if convert ? ${to} then convert.${to} value else value;
    };
in
{
  specOf =
    args:
    let
      refused = builtins.filter (name: args ? ${name} && args.${name} != "" && args.${name} != null) commands;
      isKept = name: !(builtins.elem name (needless ++ commands)) && args.${name} != null;
      names = builtins.filter isKept (builtins.attrNames args);
    in
    if refused != [ ] then
      throw "firn.buildImage: ${builtins.head refused} runs commands, which a spec cannot; run them in a derivation and give that to copyToRoot"
    else
      { version = 1; } // builtins.listToAttrs (builtins.map (field args) names);
}

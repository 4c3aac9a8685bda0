"""Judges a CycloneDX document by the library of those who wrote the form; what is wrong goes to standard error."""
import json, pathlib, sys
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = pathlib.Path(sys.argv[1]).read_text()
document = json.loads(text)
validator = JsonStrictValidator(SchemaVersion.from_version(document["specVersion"]))
errors = list(validator.validate_str(text, all_errors=True) or [])
if errors:
    sys.exit("\n".join(f"{error.data.json_path}: {error.data.message}" for error in errors))

# A schema does not see whether what is referred to is there, nor what a package URL says.
bom = Bom.from_json(document)
bom.validate()
for component in bom.components:
    print(component.name, component.version, component.purl)

"""Kubernetes' own schemas, of PyPI's kubernetes-validate, and ours of other projects' kinds; strict: a field that a version does not know is an error.

The package reads and links its schemas anew for each document; here each schema is linked once, since thousands of documents are judged.
"""

import functools
import re
from pathlib import Path

import jsonschema
import yaml
from kubernetes_validate import utils
from referencing import Registry, Resource

# Kinds that Kubernetes itself has not, and since which 1.x it has those that are new.
CUSTOM = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text())
FOREIGN = {name.split()[1] for name in CUSTOM["kinds"]}
SINCE = {"MutatingAdmissionPolicy": 36, "MutatingAdmissionPolicyBinding": 36}
MINORS = range(25, 38)


@functools.cache
def _registry(folder):
    definitions = utils.schema_contents(f"kubernetes-json-schema/{folder}/_definitions.json", folder)
    return Resource.from_contents(definitions) @ Registry()


@functools.cache
def _validator(api_version, kind, minor):
    newest = [v for v in utils.all_versions() if utils.major_minor(v) == f"1.{minor}"]
    if not newest:
        raise LookupError(f"kubernetes-validate has no schemas of 1.{minor}")
    folder = f"v{newest[-1]}-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = utils.schema_contents(f"kubernetes-json-schema/{folder}/{kind.lower()}-{group}.json", folder)
    return jsonschema.Draft202012Validator(schema, registry=Resource.from_contents(schema) @ _registry(folder))


def validate(document, minor):
    """Raises jsonschema.ValidationError for what that version does not take, FileNotFoundError if it has no such kind."""
    _validator(document["apiVersion"], document["kind"], minor).validate(document)


def validate_foreign(document):
    """The same for another project's kind: KeyError if there is no schema of it."""
    spec = CUSTOM["kinds"][f"{document['apiVersion']} {document['kind']}"]
    properties = {"apiVersion": {}, "kind": {}, "metadata": {"$ref": "#/definitions/metadata"}, "spec": spec}
    schema = {"definitions": CUSTOM["definitions"], "type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}
    jsonschema.Draft202012Validator(schema).validate(document)

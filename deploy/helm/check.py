#!/usr/bin/env python3
"""Reads Kubernetes objects in YAML from standard input, holds each to the schema of its kind, and writes all as a list of JSON.

`check.py VERSION...` checks against each version of Kubernetes, unknown fields refused. A kind without a schema is refused,
but for those of other projects named here.
"""

import json
import sys

import kubernetes_validate
import yaml

FOREIGN = {("monitoring.coreos.com/v1", "ServiceMonitor")}


class Strict(yaml.SafeLoader):
    """Refuses a key that comes twice: the second one would count in silence."""


def mapping(loader, node, deep=False):
    keys = [loader.construct_object(key, deep=deep) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} comes twice", node.start_mark)
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)


def main():
    objects = [one for one in yaml.load_all(sys.stdin, Strict) if one is not None]
    if not objects:
        sys.exit("no object")
    wrong = []
    for one in objects:
        name = f"{one.get('kind')} {one.get('metadata', {}).get('name')}"
        if (one.get("apiVersion"), one.get("kind")) in FOREIGN:
            continue
        for version in sys.argv[1:]:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except Exception as error:  # one of several kinds, each of which is a refusal
                wrong.append(f"{name}, Kubernetes {version}: {error}".splitlines()[0])
    if wrong:
        sys.exit("\n".join(wrong))
    json.dump(objects, sys.stdout)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes schemas.json: the arguments of the resources that deploy --emit writes, out of the published bindings of the providers (CDK Terrain),
which are generated from the providers' own schemas. Usage, in an empty folder:

    pip download --no-deps cdktn-provider-aws==25.7.0 cdktn-provider-google==21.1.0 cdktn-provider-azapi==1.0.0
    python3 extract.py *.whl > schemas.json
"""
import io, json, re, sys, tarfile, zipfile

RESOURCES = {  # folder of the bindings by resource
    "hashicorp/aws": {"aws_lambda_function": "lambda-function", "aws_lambda_alias": "lambda-alias"},
    "hashicorp/google": {"google_cloud_run_v2_service": "cloud-run-v2-service"},
    "Azure/azapi": {"azapi_resource": "resource", "azapi_resource_action": "resource-action"},
}
SIMPLE = {"string": "string", "number": "number", "boolean": "bool"}
MEMBER = re.compile(r"#(\w+) [\w#]+\}(?:(?!\*/).)*?\*/\s*readonly \w+(\??): ((?:\{.*?\n    \}|[^;{]+)[^;]*);", re.S)
MAPS = {"any": "dynamic", "string": ["map", "string"], "number": ["map", "number"], "string[]": ["map", ["list", "string"]]}


def block(text, interfaces):
    attributes, blocks = {}, {}
    for name, optional, typ in MEMBER.findall(text):
        required = optional == ""
        typ = re.sub(r"\s+", " ", typ.replace("| cdktn.IResolvable", "")).strip()
        array = typ.endswith("[]")
        base = typ.removesuffix("[]").strip("()")
        if m := re.match(r"\{ \[key: string\]: (.+?); \}", typ):
            attributes[name] = {"type": MAPS[m[1]], "required": required}
        elif base in SIMPLE:
            attributes[name] = {"type": ["list", SIMPLE[base]] if array else SIMPLE[base], "required": required}
        elif base in interfaces:
            blocks[name] = {"required": required, "one": not array, "block": block(interfaces[base], interfaces)}
        else:
            sys.exit(f"{name} is of type {typ}")
    return {"attributes": attributes, "blocks": blocks}


def resource(text):
    interfaces = dict(re.findall(r"\nexport interface (\w+)[^{]*\{\n(.*?)\n\}", text, re.S))
    top = next(n for n, _ in re.findall(r"export interface (\w+) (extends cdktn.TerraformMetaArguments)", text))
    out = block(interfaces[top], interfaces)
    own = text[text.index("extends cdktn.TerraformResource"):]
    settable = set(re.findall(r"\n    set (\w+)\(", own))
    for camel, typ in re.findall(r"\n    get (\w+)\(\): (string|number);", own):
        if camel not in settable and not camel.endswith("Input"):
            name = re.sub(r"([A-Z])", r"_\1", camel).lower()
            out["attributes"].setdefault(name, {"type": SIMPLE[typ], "computed": True})
    return out


def main():
    out = {}
    for wheel in sys.argv[1:]:
        z = zipfile.ZipFile(wheel)
        about = z.read(next(n for n in z.namelist() if n.endswith("/METADATA"))).decode()
        source, version = re.search(r"bindings for (\S+) provider version (\S+)", about).groups()
        t = tarfile.open(fileobj=io.BytesIO(z.read(next(n for n in z.namelist() if n.endswith(".tgz")))))
        text = {n: t.extractfile(f"package/lib/{d}/index.d.ts").read().decode() for n, d in RESOURCES[source].items()}
        out[source] = {"version": version, "resources": {n: resource(x) for n, x in text.items()}}
    json.dump(out, sys.stdout, indent=1, sort_keys=True)
    print()


main()

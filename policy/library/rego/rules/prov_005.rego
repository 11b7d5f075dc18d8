# METADATA
# scope: package
# title: "Training data and base models are materials"
# description: "Each provenance that counts lists, by digest, every declared training and calibration data set and every declared base model: what the model was made from is what was declared."
# custom:
#   id: PROV-005
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: medium
#   remediation: "record the digests of data and base models in the provenance: waybill attest REF --type provenance --predicate provenance.json --key builder.key"
#   standards:
#     - "SLSA v1 resolvedDependencies"
#     - "EU AI Act Annex IV 2(d)"
#     - "NIST AI RMF MANAGE 3.2"
#     - "OWASP ML07 Transfer Learning Attack"
package waybill.rules.prov_005

import data.waybill.lib

skip := "no provenance counts; PROV-001 and PROV-002 tell whether one is needed" if count(lib.builds) == 0

made_of contains {"what": "data set", "name": d.name, "digest": d.digest, "bundle": d.bundle} if {
	some d in input.datasets
	d.role in {"train", "calibration"}
}

made_of contains {"what": "base model", "name": m.name, "digest": m.digest, "bundle": input.model.declared} if some m in input.model.baseModels

default pass := false

pass if {
	count(lib.builds) > 0
	every p in lib.builds {
		every x in made_of {
			listed(p, x)
		}
	}
}

listed(p, x) if {
	x.digest != ""
	some m in p.materials
	m.digest == x.digest
}

fail contains {"msg": sprintf("%s %s (%s) is no material of the build by %s", [x.what, x.name, x.digest, p.builder]), "evidence": [p.bundle, x.bundle]} if {
	some p in lib.builds
	some x in made_of
	not listed(p, x)
}

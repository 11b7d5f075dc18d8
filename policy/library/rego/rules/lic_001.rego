# METADATA
# scope: package
# title: "Licenses are allowed"
# description: "The model states at least one license, and every license of the model and of its data sets is on the environment's list of SPDX identifiers."
# custom:
#   id: LIC-001
#   category: data
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "correct the license in waybill.yaml or the dataset statement, or ask the platform team to allow it"
#   standards:
#     - "NIST AI RMF GOVERN 6.1"
#     - "SPDX license list"
package waybill.rules.lic_001

default pass := false

pass if {
	count(input.model.licenses) > 0
	every l in input.model.licenses {
		l in input.environment.licenses.models
	}
	data_licensed
}

# No data set is recorded: DATA-001 asks for them.
data_licensed if count(input.datasets) == 0

data_licensed if every d in input.datasets {
	d.license in input.environment.licenses.datasets
}

fail contains {"msg": "the model states no license", "evidence": []} if count(input.model.licenses) == 0

fail contains {"msg": sprintf("license %q of the model is not allowed", [l]), "evidence": []} if {
	some l in input.model.licenses
	not model_ok(l)
}

fail contains {"msg": sprintf("license %q of data set %s is not allowed", [d.license, d.name]), "evidence": [d.bundle]} if {
	some d in input.datasets
	not data_ok(d)
}

model_ok(l) if l in input.environment.licenses.models

data_ok(d) if d.license in input.environment.licenses.datasets

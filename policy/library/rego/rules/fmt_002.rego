# METADATA
# scope: package
# title: "Weights are in an allowed format"
# description: "Where the environment lists formats, every file of weights and every source model is in one of them, by its content."
# custom:
#   id: FMT-002
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "convert the model, or leave the source out: waybill pack --without-source"
#   standards:
#     - "OWASP ML06 AI supply chain attacks"
#     - "NIST AI RMF MEASURE 2.7"
#     - "CycloneDX modelCard.modelParameters"
package waybill.rules.fmt_002

holds_weights contains l if {
	some l in input.artifact.layers
	l.role in {"weights", "source"}
}

skip := "the environment allows every format that holds no code" if count(input.environment.formats) == 0

default pass := false

pass if {
	count(input.environment.formats) > 0
	every l in holds_weights {
		allowed(l)
	}
}

allowed(l) if l.format in input.environment.formats

fail contains {"msg": sprintf("%s (%s) is of format %s", [l.path, l.role, l.format]), "evidence": []} if {
	count(input.environment.formats) > 0
	some l in holds_weights
	not allowed(l)
}

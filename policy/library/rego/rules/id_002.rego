# METADATA
# scope: package
# title: "Layers are as declared"
# description: "Every layer was read and hashes to its digest, carries a known role, and the manifest has the form of a Waybill artifact."
# custom:
#   id: ID-002
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "pack and push the artifact again: waybill pack && waybill push REF"
#   standards:
#     - "OCI image-spec: content verification"
#     - "NIST AI RMF MEASURE 2.7"
#     - "OWASP ML06 AI supply chain attacks"
package waybill.rules.id_002

roles := {"module", "weights", "interface", "step", "golden", "baseline", "source", "config", "code", "doc"}

default pass := false

pass if {
	count(input.artifact.layers) > 0
	count(input.artifact.problems) == 0
	every l in input.artifact.layers {
		l.digestVerified == true
		l.role in roles
		l.path != ""
	}
	whole
	some i in input.artifact.layers
	i.role == "interface"
}

whole if {
	some m in input.artifact.layers
	m.role == "module"
}

# Bundled as it is: what the model is made of instead.
whole if {
	input.build.compiled == false
	some s in input.artifact.layers
	s.role == "source"
}

fail contains {"msg": sprintf("layer %s (%s) could not be verified against its digest", [l.path, l.digest]), "evidence": []} if {
	some l in input.artifact.layers
	l.digestVerified == false
}

fail contains {"msg": sprintf("layer %s has the unknown role %q", [l.path, l.role]), "evidence": []} if {
	some l in input.artifact.layers
	not known(l)
}

fail contains {"msg": sprintf("%s: %s", [p.code, p.text]), "evidence": []} if some p in input.artifact.problems

known(l) if l.role in roles

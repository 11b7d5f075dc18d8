# METADATA
# scope: package
# title: "The source is one that the environment allows"
# description: "Where the environment names repositories, each provenance that counts was built from one of them. A name ends in * to allow what begins with it."
# custom:
#   id: PROV-008
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "build from an allowed repository, or let the platform team add it: waybill env show ENV"
#   standards:
#     - "SLSA: verifying artifacts (source)"
#     - "NIST SSDF PS.1"
#     - "OWASP ML06 AI supply chain attacks"
package waybill.rules.prov_008

import data.waybill.lib

skip := "the environment names no repository" if count(input.environment.sources) == 0

default pass := false

pass if {
	count(input.environment.sources) > 0
	count(lib.builds) > 0
	every p in lib.builds {
		allowed(p.source.uri)
	}
}

allowed(uri) if {
	uri != ""
	uri in input.environment.sources
}

allowed(uri) if {
	some s in input.environment.sources
	endswith(s, "*")
	start := trim_suffix(s, "*")
	startswith(uri, start)
	uri != start
	clean(uri)
}

# A path that climbs begins like what is allowed and ends elsewhere.
clean(uri) if {
	parts := split(uri, "/")
	count([p | some p in parts; p in {".", ".."}]) == 0
}

fail contains {"msg": sprintf("builder %s built from %s", [lib.builder(p), p.source.uri]), "evidence": [p.bundle]} if {
	count(input.environment.sources) > 0
	some p in lib.builds
	p.source.uri != ""
	not allowed(p.source.uri)
}

fail contains {"msg": sprintf("builder %s names no source", [lib.builder(p)]), "evidence": [p.bundle]} if {
	count(input.environment.sources) > 0
	some p in lib.builds
	p.source.uri == ""
}

fail contains {"msg": "the environment names repositories, and no provenance that counts says where this is from", "evidence": [input.environment.digest]} if {
	count(input.environment.sources) > 0
	count(lib.builds) == 0
}

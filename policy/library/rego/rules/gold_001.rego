# METADATA
# scope: package
# title: "Golden vectors reproduce the training framework"
# description: "The artifact carries test vectors, and where they hold the training framework's own outputs the compiled module agrees within the stated tolerance. At least one vector does."
# custom:
#   id: GOLD-001
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "pack with golden vectors that carry references: waybill pack"
#   standards:
#     - "NIST AI RMF MEASURE 2.5"
#     - "NIST AI RMF MEASURE 2.3"
package waybill.rules.gold_001

import data.waybill.lib

default pass := false

pass if {
	input.build.interfaceOk == true
	input.build.golden.present == true
	input.build.golden.vectors > 0
	input.build.golden.references > 0
	input.build.golden.agree == true
}

# Without a module there is nothing that vectors could be run through.
pass if {
	lib.files_only
	input.build.interfaceOk == true
}

fail contains {"msg": "the artifact carries no golden vectors", "evidence": []} if {
	input.build.golden.present == false
	not lib.files_only
}

fail contains {"msg": sprintf("interface document: %s", [input.build.interfaceNote]), "evidence": []} if input.build.interfaceOk == false

fail contains {"msg": sprintf("golden vectors: %d of %d carry a reference; %s", [input.build.golden.references, input.build.golden.vectors, input.build.golden.note]), "evidence": []} if {
	input.build.golden.present == true
	input.build.interfaceOk == true
	not pass
}

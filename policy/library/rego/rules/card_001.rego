# METADATA
# scope: package
# title: "A model card is included"
# description: "The artifact carries a model card that tells what the model is for and where it should not be used."
# custom:
#   id: CARD-001
#   category: people
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: low
#   level: warn
#   remediation: "add README.md or MODEL_CARD.md under docs in waybill.yaml and pack again: waybill pack"
#   standards:
#     - "EU AI Act Annex IV 1(a)"
#     - "Model Cards"
#     - "SPDX AIPackage limitation"
package waybill.rules.card_001

default pass := false

pass if {
	input.modelCard.present == true
	input.modelCard.digest != ""
}

fail contains {"msg": "no model card among the doc layers", "evidence": []} if not pass

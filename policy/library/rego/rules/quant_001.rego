# METADATA
# scope: package
# title: "A quantised model names its original"
# description: "A model whose numbers were made smaller names by digest the model that it was made from, and what it was calibrated on is not what it is tested on."
# custom:
#   id: QUANT-001
#   category: target
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "declare baseModels in the bill of materials, and calibrate on data of its own: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "NIST AI RMF MANAGE 3.2"
#     - "NIST AI RMF MEASURE 2.1"
#     - "CycloneDX pedigree.ancestors"
package waybill.rules.quant_001

quantised if input.model.quantization != ""

quantised if input.model.precision in {"int4", "uint4", "int8", "uint8"}

skip := "the model is not quantised" if {
	input.model.quantization == ""
	not quantised
}

original if {
	count(input.model.baseModels) > 0
	every m in input.model.baseModels {
		m.digest != ""
	}
}

calibration contains d.digest if {
	some d in input.datasets
	d.role == "calibration"
	d.digest != ""
}

held_out contains d.digest if {
	some d in input.datasets
	d.role in {"test", "validation"}
}

default pass := false

pass if {
	quantised
	original
	count(calibration & held_out) == 0
}

fail contains {"msg": sprintf("quantised (%s), and the original is not declared by its digest", [input.model.quantization]), "evidence": [input.model.declared]} if {
	quantised
	not original
}

fail contains {"msg": sprintf("data set %s serves for calibration and for the test", [d.name]), "evidence": [d.bundle]} if {
	quantised
	some d in input.datasets
	d.role == "calibration"
	d.digest in held_out
}

# METADATA
# scope: package
# title: "No regression against the champion"
# description: "For every threshold the model is not worse than the digest now in the channel by more than the allowed regression, measured on the same data. The first release of a channel has no champion."
# custom:
#   id: MET-002
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "improve the model, or attest an evaluation of the champion on the same data set: waybill attest CHAMPION --type evaluation --predicate eval.json --key evaluator.key"
#   standards:
#     - "NIST AI RMF MEASURE 2.5"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.met_002

import data.waybill.lib

first if {
	input.champion.seq == 0
	input.champion.digest == ""
	input.champion.verified == true
}

default pass := false

pass if first

pass if {
	input.champion.seq > 0
	input.champion.verified == true
	count(input.environment.metrics) > 0
	every t in input.environment.metrics {
		holds(t)
	}
}

# Figures of the champion on the data that m was measured on.
rivals(m, t) := {c | some c in lib.champion_measured(t); c.dataset == m.dataset}

holds(t) if {
	ms := lib.measured(t)
	count(ms) > 0
	every m in ms {
		cs := rivals(m, t)
		count(cs) > 0
		every c in cs {
			not_worse(m, c, t)
		}
	}
}

not_worse(m, c, t) if {
	t.direction == "higher"
	m.value >= c.value - t.maxRegression
}

not_worse(m, c, t) if {
	t.direction == "lower"
	m.value <= c.value + t.maxRegression
}

fail contains {"msg": sprintf("the champion of channel %s is not proven: %s", [input.champion.channel, input.champion.reason]), "evidence": [input.champion.record]} if input.champion.verified == false

fail contains {"msg": sprintf("%s%s cannot be compared: the champion %s has no verified figure on the same data set", [t.name, lib.on_slice(t), substring(input.champion.digest, 0, 19)]), "evidence": [m.bundle]} if {
	not first
	input.champion.verified == true
	some t in input.environment.metrics
	some m in lib.measured(t)
	count(rivals(m, t)) == 0
}

fail contains {"msg": sprintf("%s%s is %v, the champion %s has %v (at most %v worse is allowed)", [t.name, lib.on_slice(t), m.value, substring(input.champion.digest, 0, 19), c.value, t.maxRegression]), "evidence": [m.bundle, c.bundle]} if {
	not first
	some t in input.environment.metrics
	some m in lib.measured(t)
	some c in rivals(m, t)
	not not_worse(m, c, t)
}

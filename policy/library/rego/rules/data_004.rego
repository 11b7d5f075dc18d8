# METADATA
# scope: package
# title: "Training data is fresh enough"
# description: "Where the environment limits the age of training data, the newest record of the training data lies within the limit, and none lies in the future."
# custom:
#   id: DATA-004
#   category: data
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "train on newer data, and record from and to: waybill attest REF --type dataset --predicate datasets.json --key evaluator.key"
#   standards:
#     - "NIST AI RMF MANAGE 4.1"
#     - "EU AI Act Article 10"
package waybill.rules.data_004

import data.waybill.lib

default pass := false

limit := input.environment.maxDataAgeDays

skip := "the environment sets no limit on the age of training data" if limit == 0

# Newest record of each training set that tells it.
newest[d.name] := lib.ns(d.to) if {
	some d in training
	d.to != ""
}

training contains d if {
	some d in input.datasets
	d.role == "train"
}

in_future contains d if {
	some d in training
	d.to != ""
	lib.ns(d.to) > lib.now + lib.day
}

pass if {
	limit > 0
	count(in_future) == 0
	some _, t in newest
	lib.now - t <= limit * lib.day
}

fail contains {"msg": sprintf("no training data tells the time of its newest record; the environment allows %d days", [limit]), "evidence": lib.bundles(training)} if {
	limit > 0
	count(newest) == 0
}

fail contains {"msg": sprintf("data set %s ends at %s, which is in the future", [d.name, d.to]), "evidence": [d.bundle]} if {
	limit > 0
	some d in in_future
}

fail contains {"msg": sprintf("the newest record of training data %s is of %s; the environment allows %d days", [d.name, d.to, limit]), "evidence": [d.bundle]} if {
	limit > 0
	count(newest) > 0
	count(in_future) == 0
	not pass
	some d in training
	d.to != ""
}

# What was measured, tested and written down.
package waybill.lib

# Verified evaluations of this digest.
evaluations contains a if {
	some a in attested
	endswith(a.predicateType, "/evaluation/v1")
}

# Verified evaluations and test reports, each with bundle, signer, at and timeSource.
reports contains {"bundle": a.bundle, "signer": a.signer, "at": a.at, "timeSource": a.timeSource} if some a in evaluations

reports contains {"bundle": t.bundle, "signer": t.signer, "at": t.at, "timeSource": t.timeSource} if some t in input.tests

# Reports that speak for the model. One that lists something else besides is not believed.
favorable contains t if {
	some t in input.tests
	t.result == "PASSED"
	count(t.failed) == 0
	count(t.warned) == 0
}

favorable contains t if {
	some t in input.tests
	t.result == "WARNED"
	count(t.failed) == 0
}

# Reports of a failure, by their result or by a test that they list.
failed_reports contains t if {
	some t in input.tests
	t.result == "FAILED"
}

failed_reports contains t if {
	some t in input.tests
	count(t.failed) > 0
}

# Reports that are neither: PASSED, and tests that warn.
unclear contains t if {
	some t in (({t | some t in input.tests} - favorable) - failed_reports)
}

# Those of the failures that are as new as a report, or that nobody can put before it.
undone(report, failures) := {f |
	some f in failures
	not before(f, report)
}

before(f, report) if {
	f.at != ""
	report.at != ""
	ns(f.at) < ns(report.at)
}

# Verdicts of the environment that comes before this one.
earlier contains v if {
	some v in input.verdicts
	v.environment == input.environment.after
	v.resourceUri == input.artifact.resourceUri
}

# Sections of the model card that say something.
sections contains s if {
	some s, v in {
		"users": [x | some x in input.modelCard.users; trim_space(x) != ""],
		"useCases": [x | some x in input.modelCard.useCases; trim_space(x) != ""],
		"limitations": [x | some x in input.modelCard.limitations; trim_space(x) != ""],
		"tradeoffs": [x | some x in input.modelCard.tradeoffs; trim_space(x) != ""],
		"risks": [x.name | some x in input.modelCard.risks; trim_space(x.name) != ""],
		"fairness": [x.group | some x in input.modelCard.fairness; trim_space(x.group) != ""],
		"energy": [x.activity | some x in input.modelCard.energy; x.kWh > 0],
		"oversight": [x | x := input.modelCard.oversight; trim_space(x) != ""],
	}
	count(v) > 0
}

card_evidence := [d | d := input.modelCard.bundle; d != ""]

bracketed(license) if contains(license, "(")

no_derivatives(license) if regex.match(`-ND(-|$)`, license)

non_commercial(license) if regex.match(`-NC(-|$)`, license)

copyleft(license) if regex.match(`^(A?GPL-|OSL-|EUPL-)|-SA(-|$)`, license)

package lint

import "slices"

// Code describes one kind of finding.
type Code struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	Severity Severity `json:"severity"`
	Why      string   `json:"why"`
	Fix      string   `json:"fix"` // used where no exact form can be given
}

// Codes lists every kind of finding by id.
func Codes() []Code { return slices.Clone(codes) }

func describe(id string) Code {
	for _, c := range codes {
		if c.ID == id {
			return c
		}
	}
	return Code{ID: id, Severity: Error, Why: "", Fix: "correct it"}
}

var codes = []Code{
	{"FO-001", "negated builtin over a value that may be missing", Error,
		"OPA reads the arguments before it negates: with a missing argument the whole expression is undefined, and the rule does not fire.",
		"put the call into a helper rule and negate the helper"},
	{"FO-002", "comparison with a value that may be missing", Error,
		"A comparison with a missing value is undefined, neither true nor false, and the rule does not fire.",
		"state what must hold in a helper rule, and negate the helper"},
	{"FO-003", "iteration over a collection that may be missing", Error,
		"Going through a missing collection finds nothing, as if it were empty, and the rule never fires.",
		"deny where the collection is missing"},
	{"FO-004", "the rule reads a value that may be missing", Error,
		"One undefined expression in a body makes the whole rule undefined, and it does not fire.",
		"deny where the value is missing"},
	{"FO-005", "negation of a value that may be missing", Error,
		"The negation of a missing value is true: what nobody stated counts as good.",
		"demand the good value instead of the absence of the bad one"},
	{"FO-006", "every over a collection that may be empty", Error,
		"every is true for an empty collection: without evidence all evidence is fine.",
		"demand count(...) > 0 beside it, or say in a rule of its own that none is fine"},
	{"FO-007", "nothing was found where nothing was looked at", Error,
		"A collection built from missing values is empty, and an empty collection of offences passes.",
		"demand that the values are there before the offences are counted"},
	{"FO-008", "object.get with a default that passes", Error,
		"The default stands in for the missing value and takes the side that lets it pass.",
		"read the value itself, or use a default that does not pass"},
	{"FO-009", "glob.match with an empty list of delimiters", Error,
		"[] means the delimiter \".\", so * stops at a dot and the pattern misses what it should match; null means none.",
		"use null for no delimiters"},
	{"FO-010", "data that may be missing", Error,
		"A threshold that is not in the data makes every comparison with it undefined: without limits nothing exceeds them.",
		"state what must hold in a helper rule and negate it, or ship the value in data.json"},
	{"FO-011", "allowed by default", Error,
		"Where no rule says anything, this one says yes.",
		"begin with false and let rules prove the opposite"},
	{"FO-012", "a value without else or default", Error,
		"Where none of its conditions holds, the value is undefined, and so is all that uses it.",
		"give it a default, or an else without condition, or negate a helper that states what must hold"},
	{"FO-013", "allowed by the absence of a denial", Warning,
		"Nothing here must be proven: with empty facts no rule fires, and silence counts as consent.",
		"add a rule that denies unless something is proven: deny contains \"not proven\" if not proven"},
	{"FO-014", "the message of a denial may be undefined", Error,
		"A message that cannot be written makes the rule undefined, and the denial vanishes with it.",
		"write only values into messages that are always there, or use object.get(..., \"unknown\")"},
	{"FO-015", "with replaces the facts", Warning,
		"The rule judges another document than the one that was verified.",
		"pass the part as an argument to a function"},
	{"FO-016", "look-up with a key that may not be there", Error,
		"A look-up that finds nothing is undefined, and the rule does not fire.",
		"state what must hold in a helper rule, and negate the helper"},
	{"FO-017", "condition that is never true", Error,
		"The rule cannot fire, whatever the facts say.",
		"correct the condition, or delete the rule"},
	{"FO-018", "negation of an expression over the input", Warning,
		"It works today because this expression needs no argument read beforehand; one function call more, and it is silent about missing values.",
		"put the expression into a helper rule and negate the helper"},
	{"DP-001", "device policy does not begin with deny", Error,
		"The evaluator of the device takes undefined for an error; a policy says itself that nothing is allowed by default.",
		"default allow := false"},
	{"DP-002", "builtin that a device does not have", Error,
		"What is not compiled into the module would be asked of the device, which supplies no builtin.",
		"use another builtin"},
	{"DP-003", "device policy that makes a value of what is missing", Error,
		"WebAssembly has no strict errors: a reading or a builtin that fails is undefined, and here something undefined could become a yes.",
		"state what must hold: compare with == false, or write a positive rule"},
	{"DP-004", "device policy with other rules than allow", Error,
		"A device asks whether allow is true, and for reasons; nothing else counts.",
		"write it as a condition of allow"},
	{"DP-005", "what the input of a device cannot hold", Error,
		"The input of a device has a closed schema: what is not in it is never there, and nothing else is ever equal to it.",
		"read what the input holds: docs/device-policy.md"},
	{"DP-006", "document that a device does not have", Error,
		"Only the device-local packages are compiled into the module; a reference to anything else is undefined.",
		"write the value into the policy"},
	{"QA-001", "does not compile", Error, "The gate refuses a policy that does not compile.", "correct it"},
	{"QA-002", "METADATA is missing or incomplete", Error, "A denial must be explained: title, description, severity, remediation and standards.", "complete the METADATA block above the package"},
	{"QA-003", "two rules with one id", Error, "Nobody can tell which of them denied, and an exception would cover both.", "give each rule an id of its own"},
	{"QA-004", "deprecated builtin", Warning, "A later OPA may not have it.", "use what the documentation of OPA names instead"},
	{"QA-005", "builtin whose result differs between two runs", Error, "The same facts must give the same decision; a replay could not.", "take time from input.context.time, and everything else from the facts"},
	{"QA-006", "name that hides another one", Error, "The rule reads the local value where it seems to read the facts, a builtin or another rule.", "choose another name"},
	{"QA-007", "METADATA that nobody reads", Warning, "A misspelt key is as good as none.", "correct its name or delete it"},
	{"QA-008", "unknown level or profile", Error, "A profile that is misspelt never applies.", "use baseline, strict, eu-high-risk or edge, with deny, warn or off"},
	{"QA-009", "message whose verbs do not fit its values", Warning, "The message will hold %!d(MISSING) or the like.", "give as many values as verbs"},
	{"QA-011", "syntax of Rego v0", Warning, "The gate reads it in packages of users; the safe forms shown here are written in Rego v1, and a later OPA may not read v0.", "convert it: waybill policy fmt PATH --rego-v1"},
	{"QA-010", "comment that suppresses nothing", Warning, "It would hide the next finding here unseen.", "delete it, or give the code of a finding and a reason"},
}

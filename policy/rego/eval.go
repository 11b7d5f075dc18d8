package rego

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/people"
)

// Bounds of what a policy may report: the record of a decision has to fit into one signed bundle.
const (
	maxRules    = 1024
	maxFindings = 64      // of one rule
	maxText     = 2 << 10 // of one message
	maxEvidence = 64      // of one finding
)

// Evaluate decides over doc, the canonical bytes of a facts document. It always returns a decision: whatever goes wrong,
// a cancelled context included, is a denial with its reason. Equal documents and policies give equal decisions.
// A decision that would not fit into a record is one that does, and a denial: decision.Within.
func (p *Policy) Evaluate(ctx context.Context, doc []byte) decision.Decision {
	return p.evaluate(ctx, doc).Within(decision.MaxBytes)
}

func (p *Policy) evaluate(ctx context.Context, doc []byte) decision.Decision {
	d := decision.New(string(p.bundle.Digest()), string(artifact.DigestOf(doc)))
	in, problems := p.check(doc)
	if len(problems) > 0 {
		for _, r := range p.rules {
			st := decision.Skipped
			if r.ID == SchemaRule {
				st = decision.Fail
			}
			row := decision.Rule{ID: r.ID, Title: r.Title, Severity: r.Severity, Status: st, Level: r.Level}
			if st == decision.Skipped {
				row.Detail = notAccepted
			}
			d.Rules = append(d.Rules, row)
		}
		info := schemaRuleInfo()
		for _, m := range problems {
			d.Violations = append(d.Violations, result(info, m, nil))
		}
		d.Environment = in.Environment.Name
		return d
	}
	d.Environment = in.Environment.Name
	value, err := ast.ValueFromReader(bytes.NewReader(doc))
	if err != nil { // it parsed a moment ago
		d.Error = "read facts: " + err.Error()
		return d
	}
	timeout, memory := p.timeout, p.memory
	if !p.on("timeout") {
		timeout = time.Hour
	}
	if !p.on("memory") {
		memory = math.MaxInt64
	}
	ctx, cancel := bounded(ctx, timeout, memory)
	defer cancel()
	e := evaluation{p: p, in: in, facts: value}
	env, err := environmentData(value)
	if err == nil {
		var release func()
		if e.txn, e.data, release, err = p.withData(ctx, env); err == nil {
			defer release()
		}
	}
	for _, r := range p.rules {
		e.apply(ctx, &d, r, err)
		if r.ID != SchemaRule {
			continue
		}
		if err != nil {
			d.Violations = append(d.Violations, result(r.RuleInfo, err.Error(), nil))
		}
		for _, n := range e.leftOut() {
			d.Violations = append(d.Violations, result(r.RuleInfo, shorten(n.Text), nil))
		}
	}
	d.Close()
	return d
}

// shorten bounds a text that a policy wrote.
func shorten(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + fmt.Sprintf(" ... (%d bytes)", len(s))
}

// check returns what keeps the document from being evaluated, sorted.
func (p *Policy) check(doc []byte) (input.Input, []string) {
	if len(doc) > input.MaxBytes {
		return input.Input{}, []string{fmt.Sprintf("the facts document has %d bytes, limit %d", len(doc), input.MaxBytes)}
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return input.Input{}, []string{"the facts document is not JSON: " + shorten(err.Error())}
	}
	if err := p.schema.Validate(v); err != nil && p.on("schema") {
		return input.Input{}, schemaProblems(err)
	}
	in, err := input.Parse(doc)
	if err != nil {
		return in, []string{err.Error()}
	}
	// The digest that a verdict binds is that of the canonical bytes; other bytes with the same meaning have no place here.
	// It also catches duplicate keys, of which two readers may see different ones.
	canon, err := in.Canonical()
	if p.on("canonical") && (err != nil || !bytes.Equal(canon, doc)) {
		return in, []string{"the facts document is not in its canonical form"}
	}
	if want := string(p.bundle.Digest()); p.on("policy digest") && in.Environment.PolicyDigest != want {
		return in, []string{fmt.Sprintf("the environment pins policy %s, this policy is %s", in.Environment.PolicyDigest, want)}
	}
	if err := p.knows(in.Environment.Profile); err != nil && p.on("profile") {
		return in, []string{err.Error()}
	}
	return in, nil
}

// schemaProblems lists the leaves of a validation error, sorted, at most maxFindings.
func schemaProblems(err error) []string {
	var ve *jsonschema.ValidationError
	if !errors.As(err, &ve) {
		return []string{err.Error()}
	}
	pr := message.NewPrinter(language.English)
	var out []string
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			out = append(out, shorten(fmt.Sprintf("/%s: %s", strings.Join(e.InstanceLocation, "/"), e.ErrorKind.LocalizedString(pr))))
		}
		for _, c := range e.Causes {
			walk(c)
		}
	}
	walk(ve)
	slices.Sort(out)
	out = slices.Compact(out)
	return clip(out)
}

func clip(msgs []string) []string {
	if len(msgs) > maxFindings {
		n := len(msgs) - maxFindings
		msgs = append(msgs[:maxFindings:maxFindings], fmt.Sprintf("and %d more", n))
	}
	return msgs
}

const notAccepted = "not evaluated: the facts were not accepted"

// finding is one thing that a rule reports.
type finding struct {
	msg      string
	evidence []string
}

// evaluation is one document on its way through a policy.
type evaluation struct {
	p     *Policy
	in    input.Input
	facts ast.Value
	data  map[string]any      // the policy's, with the environment's over it
	txn   storage.Transaction // in which a rule sees data; nil for the policy's own
}

// leftOut lists what the document says was left out of it. That denies under every policy, one that does not look at
// artifact.problems too: its rules have not seen all there is.
func (e *evaluation) leftOut() []input.Note {
	if !e.p.on("left out") {
		return nil
	}
	var out []input.Note
	for _, n := range e.in.Artifact.Problems {
		if n.Code == input.LeftOut {
			out = append(out, n)
		}
	}
	return out[:min(len(out), maxFindings)]
}

// apply evaluates one rule and files its outcome in d. With broken, nothing can be evaluated: the facts are at fault.
func (e *evaluation) apply(ctx context.Context, d *decision.Decision, r rule, broken error) {
	in := e.in
	if !e.p.on("mandatory") {
		r.Mandatory = false
	}
	level, why := r.inForce(in.Environment)
	row := decision.Rule{ID: r.ID, Title: r.Title, Severity: r.Severity, Status: decision.Pass, Level: level}
	defer func() { d.Rules = append(d.Rules, row) }()
	switch {
	case r.ID == SchemaRule && broken != nil:
		row.Status, row.Detail = decision.Fail, broken.Error()
		return
	case r.ID == SchemaRule:
		if len(e.leftOut()) > 0 {
			row.Status, row.Detail = decision.Fail, "facts were left out"
		}
		return
	case broken != nil:
		row.Status, row.Detail = decision.Skipped, notAccepted
		return
	}
	if level == levelOff {
		row.Status, row.Detail = decision.Skipped, why
		return
	}
	status, found, detail, err := e.run(ctx, r)
	if err != nil {
		// An error denies even where the rule would only warn: nobody knows what it would have said.
		row.Status, row.Detail = decision.Errored, err.Error()
		d.Violations = append(d.Violations, result(r.RuleInfo, "the rule could not be evaluated: "+err.Error(), nil))
		return
	}
	row.Status, row.Detail = status, detail
	if status != decision.Fail {
		return
	}
	if detail != "" { // the policy's own exception
		row.Status = decision.Excepted
		for _, f := range found {
			d.Exceptions = append(d.Exceptions, result(r.RuleInfo, fmt.Sprintf("%s (%s)", f.msg, detail), f.evidence))
		}
		return
	}
	to := &d.Violations
	if level == levelWarn {
		to = &d.Warnings
	} else if x, ok := excepted(r, in); ok {
		row.Status = decision.Excepted
		row.Detail = fmt.Sprintf("excepted until %s by %s: %s", x.Expires.UTC().Format(time.RFC3339), signerName(x.Signer), x.Reason)
		for _, f := range found {
			d.Exceptions = append(d.Exceptions, result(r.RuleInfo, fmt.Sprintf("%s (%s)", f.msg, row.Detail), append(slices.Clone(f.evidence), x.Bundle)))
		}
		return
	}
	for _, f := range found {
		*to = append(*to, result(r.RuleInfo, f.msg, f.evidence))
	}
}

// excepted finds the waiver that covers a failing rule: people.Waives tells which have effect, and a mandatory rule none.
// Of several the one with the smallest bundle digest counts.
func excepted(r rule, in input.Input) (input.Exception, bool) {
	if r.Mandatory {
		return input.Exception{}, false
	}
	for _, x := range in.Exceptions {
		if x.Rule == r.ID && people.Waives(in, x) == "" {
			return x, true
		}
	}
	return input.Exception{}, false
}

func signerName(s input.Signer) string {
	if s.Name != "" {
		return s.Name
	}
	return s.KeyID
}

func result(r RuleInfo, msg string, evidence []string) decision.Result {
	ev := slices.Clone(evidence)
	slices.Sort(ev)
	ev = slices.Compact(ev)
	if ev == nil {
		ev = []string{}
	}
	std := slices.Clone(r.Standards)
	if std == nil {
		std = []string{}
	}
	return decision.Result{ID: r.ID, Severity: r.Severity, Message: msg, Remediation: r.Remediation, Evidence: ev, Standards: std}
}

// run evaluates one rule's document.
func (e *evaluation) run(ctx context.Context, r rule) (st decision.Status, found []finding, detail string, err error) {
	defer func() {
		if x := recover(); x != nil { // a builtin that panics must not take the gate down, nor open it
			st, found, detail, err = "", nil, "", errors.New(shorten(fmt.Sprintf("panic in evaluation: %v", x)))
		}
	}()
	value := e.facts
	if r.user != nil {
		if value, err = r.user.input(value, e.data); err != nil {
			return "", nil, "", err
		}
	}
	opts := []rego.EvalOption{rego.EvalParsedInput(value), rego.EvalSortSets(true)}
	if e.txn != nil {
		opts = append(opts, rego.EvalTransaction(e.txn))
	}
	rs, err := r.query.Eval(ctx, opts...)
	if ctx.Err() != nil {
		return "", nil, "", context.Cause(ctx)
	}
	if err != nil {
		return "", nil, "", errors.New(oneLine(err))
	}
	if len(rs) == 0 && !e.p.on("undefined") {
		return decision.Pass, nil, "", nil
	}
	if len(rs) != 1 || len(rs[0].Expressions) != 1 {
		return "", nil, "", errors.New("the rule is undefined")
	}
	v := rs[0].Expressions[0].Value
	if r.user == nil {
		return ruleOutcome(r.RuleInfo, v)
	}
	if found, err = userFindings(v); err != nil {
		return "", nil, "", err
	}
	if len(found) == 0 {
		return decision.Pass, nil, "", nil
	}
	excepted, err := r.user.excepts(ctx, path.Base(r.ID), opts)
	if err != nil {
		return "", nil, "", err
	}
	if excepted {
		detail = fmt.Sprintf("excepted by the policy itself: %s.exception", r.user.path)
	}
	return decision.Fail, found, detail, nil
}

func oneLine(err error) string { return shorten(strings.Join(strings.Fields(err.Error()), " ")) }

// ruleOutcome reads {pass, fail, skip}. Anything else than that shape is an error, hence a denial.
func ruleOutcome(r RuleInfo, v any) (decision.Status, []finding, string, error) {
	doc, ok := v.(map[string]any)
	if !ok {
		return "", nil, "", errors.New("the rule's document is no object")
	}
	pass, ok := doc["pass"].(bool)
	if !ok {
		return "", nil, "", errors.New("the rule does not define pass as true or false")
	}
	list, ok := doc["fail"].([]any)
	if !ok {
		return "", nil, "", errors.New("the rule does not define fail as a set")
	}
	var found []finding
	for _, x := range list {
		o, ok := x.(map[string]any)
		if !ok {
			return "", nil, "", errors.New("fail holds something that is no object with msg")
		}
		f, err := toFinding(o)
		if err != nil {
			return "", nil, "", err
		}
		found = append(found, f)
	}
	if s, ok := doc["skip"]; ok {
		why, ok := s.(string)
		if !ok || why == "" || pass || len(found) > 0 {
			return "", nil, "", errors.New("the rule skips and judges at once")
		}
		return decision.Skipped, nil, shorten(why), nil
	}
	if pass && len(found) == 0 {
		return decision.Pass, nil, "", nil
	}
	if len(found) == 0 {
		found = []finding{{msg: "not proven: " + r.Title}}
	}
	return decision.Fail, sorted(found), "", nil
}

func toFinding(o map[string]any) (finding, error) {
	msg, ok := o["msg"].(string)
	if !ok || strings.TrimSpace(msg) == "" {
		return finding{}, errors.New("a finding has no msg")
	}
	f := finding{msg: shorten(msg)}
	ev, _ := o["evidence"].([]any)
	for _, e := range ev {
		if s, ok := e.(string); ok && s != "" && len(f.evidence) < maxEvidence {
			f.evidence = append(f.evidence, shorten(s))
		}
	}
	return f, nil
}

// sorted orders findings by text and bounds their number.
func sorted(fs []finding) []finding {
	sort.SliceStable(fs, func(i, j int) bool { return fs[i].msg < fs[j].msg })
	if len(fs) > maxFindings {
		n := len(fs) - maxFindings
		fs = append(fs[:maxFindings:maxFindings], finding{msg: fmt.Sprintf("and %d more", n)})
	}
	return fs
}

package library_test

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
)

// proven are the parts of the document that come from signed statements and from the artifact's own bytes.
func proven() []string {
	return []string{"artifact", "model", "build", "provenance", "signatures", "attestations", "metrics", "datasets", "tests", "sbom",
		"vulnerabilities", "modelCard", "approvals", "verdicts", "verdictChain", "champion", "trust"}
}

// unread are facts that no rule of the default policy judges: words for people, and addresses. They are in the document for
// policies of a team's own and for reports; a change to one is a change to a signed statement, which denies before any rule.
var unread = regexp.MustCompile(`^/(` + strings.Join([]string{
	`(signatures|attestations|metrics|datasets|tests|provenance|approvals|verdicts)/#/(uri|reason|bundle|keyId|invocation|knownBias|rows|from|anonymised(/#)?|prev|policyDigest|n|ci(/#)?)`,
	`.*/(issuer|subject|kind|at|timeSource)`, `artifact/layers/#/(mediaType|size)`,
	`model/(version|family|authors(/#)?|created|vendor|description|architecture|declared)`, `model/baseModels/#/(name|version|uri)`,
	`build/(compiler|golden/note|interfaceNote)`, `provenance/#/materials/#/(name|uri)`, `provenance/#/(buildType|bundle)`, `champion/(reason|record|version|channel|digest|seq)`,
	`champion/metrics/#/.*`, `trust/generation`, `vulnerabilities/findings/#/(id|package|version)`, `modelCard/(path|bundle)`,
	`modelCard/(users|useCases|limitations|tradeoffs)/#`, `modelCard/(risks|fairness|energy)/#/.*`, `sbom/(bundle|specVersion)`, `tests/#/configuration/#`,
	`verdictChain/heads(/#)?`}, "|") + `)$`)

// shrunk are lists of what speaks against a model, and facts that say the same as another one: losing an entry, or one of the
// two, is no reason to deny. Their entries are facts of their own.
var shrunk = regexp.MustCompile(`^/(provenance/#/parameters|sbom/licenses|trust/revoked|vulnerabilities/findings|` +
	`vulnerabilities/findings/#/fixedIn|build/compiled|model/(precision|quantization))$`)

// values gives other values of the same kind: nothing, something else, extremes.
func values(v any) []any {
	switch x := v.(type) {
	case bool:
		return []any{!x}
	case json.Number:
		return []any{0, -1, 1e15}
	case string:
		switch {
		case strings.HasPrefix(x, "sha256:"):
			return []any{"sha256:" + strings.Repeat("e", 64), ""}
		case strings.HasSuffix(x, "Z") && strings.HasPrefix(x, "20"):
			return []any{"2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z", ""}
		}
		return []any{"", "x" + x}
	}
	return nil
}

// Each proven fact of a passing document is changed to something else: emptied, flipped, set to an extreme, taken from its
// list. Some change to each fact denies, or the fact is one of those that no rule judges.
func TestEachProvenFactIsGuarded(t *testing.T) {
	p := compile(t)
	base, err := library.Base(p.Bundle().Digest())
	if err != nil {
		t.Fatal(err)
	}
	base = under(t, base, "strict")
	index := regexp.MustCompile(`/[0-9]+`)
	var paths []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch x := v.(type) {
		case map[string]any:
			for k, e := range x {
				walk(path+"/"+k, e)
			}
			return
		case []any:
			for i, e := range x {
				walk(path+"/"+strconv.Itoa(i), e)
			}
		}
		paths = append(paths, path)
	}
	whole := decode(t, base).(map[string]any)
	for _, k := range proven() {
		walk("/"+k, whole[k])
	}
	slices.Sort(paths)
	guarded, changes, denied := map[string]bool{}, 0, 0
	patterns := []string{}
	for _, path := range paths {
		pattern := index.ReplaceAllString(path, "/#")
		if !slices.Contains(patterns, pattern) {
			patterns = append(patterns, pattern)
		}
		if guarded[pattern] && !full() || !full() && slices.Index(patterns, pattern)%10 != 0 {
			continue
		}
		try := func(change func(parent any, key string)) {
			doc := decode(t, base)
			segs := strings.Split(path[1:], "/")
			at := doc
			for _, s := range segs[:len(segs)-1] {
				at = child(at, s)
			}
			change(at, segs[len(segs)-1])
			b, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			changes++
			in, err := input.Parse(b)
			if err == nil {
				in.Normalize()
				b, err = in.Canonical()
			}
			if err != nil {
				return // no document at all
			}
			if !p.Evaluate(context.Background(), b).Allow {
				guarded[pattern], denied = true, denied+1
			}
		}
		value := func() any {
			at := any(whole)
			for _, s := range strings.Split(path[1:], "/") {
				at = child(at, s)
			}
			return at
		}()
		if list, ok := value.([]any); ok {
			try(func(at any, key string) { put(at, key, []any{}) })
			if len(list) == 0 {
				for _, x := range []any{"x", "sha256:" + strings.Repeat("e", 64), map[string]any{"code": "x", "text": "x"}} {
					try(func(at any, key string) { put(at, key, []any{x}) })
				}
			}
			for i := range list {
				try(func(at any, key string) {
					l := child(at, key).([]any)
					put(at, key, slices.Delete(slices.Clone(l), i, i+1))
				})
			}
			continue
		}
		for _, v := range values(value) {
			try(func(at any, key string) { put(at, key, v) })
		}
	}
	open := []string{}
	for i, x := range patterns {
		if !full() && i%10 != 0 {
			continue
		}
		if !guarded[x] && !unread.MatchString(x) && !shrunk.MatchString(x) {
			open = append(open, x)
		}
	}
	t.Logf("%d facts of %d kinds, %d changes, %d of them deny", len(paths), len(patterns), changes, denied)
	for _, x := range open {
		t.Errorf("no change to %s denies", x)
	}
}

func child(v any, seg string) any {
	switch x := v.(type) {
	case map[string]any:
		return x[seg]
	case []any:
		i, _ := strconv.Atoi(seg)
		return x[i]
	}
	return nil
}

func put(v any, seg string, to any) {
	switch x := v.(type) {
	case map[string]any:
		x[seg] = to
	case []any:
		i, _ := strconv.Atoi(seg)
		x[i] = to
	}
}

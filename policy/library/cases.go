package library

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/decision"
)

// CasesIn returns the fixtures that stand beside a user's policy: fixtures/RULE.json in the form of the builtin ones, a
// rule of conftest's shape below its package (fixtures/main/deny.json). They change fixtures/base.json, or the builtin
// base document where there is none; it is in profile unless a file names another. No folder is an empty list. With only, just
// those of these rules are made.
func CasesIn(fsys fs.FS, policy artifact.Digest, profile string, only ...string) ([]Case, error) {
	var names []string
	err := fs.WalkDir(fsys, "fixtures", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p == "fixtures" && errors.Is(err, fs.ErrNotExist) {
				return fs.SkipAll
			}
			return err
		}
		if !d.IsDir() && strings.HasSuffix(p, ".json") && p != "fixtures/base.json" {
			names = append(names, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fixtures: %w", err)
	}
	if len(names) == 0 {
		return nil, nil
	}
	base, err := Base(policy)
	if own, ferr := fs.ReadFile(fsys, "fixtures/base.json"); ferr == nil {
		base, err = canonical([]byte(strings.ReplaceAll(string(own), "sha256:"+strings.Repeat("0", 64), string(policy))))
	} else if !errors.Is(ferr, fs.ErrNotExist) {
		err = ferr
	}
	if err != nil {
		return nil, fmt.Errorf("fixtures/base.json: %w", err)
	}
	return readCases(fsys, names, "fixtures", base, profile, only)
}

// readCases reads fixture files; the name below dir is the rule. An empty only means every rule.
func readCases(fsys fs.FS, names []string, dir string, base []byte, profile string, only []string) ([]Case, error) {
	slices.Sort(names)
	var out []Case
	for _, n := range names {
		rule := strings.TrimSuffix(strings.TrimPrefix(path.Clean(n), dir+"/"), ".json")
		if len(only) > 0 && !slices.Contains(only, rule) {
			continue
		}
		b, err := fs.ReadFile(fsys, n)
		if err != nil {
			return nil, fmt.Errorf("fixtures: %w", err)
		}
		var f fixtureFile
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		d.UseNumber()
		if err := d.Decode(&f); err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		if f.Profile == "" {
			f.Profile = profile
		}
		for i, set := range [][]fixture{f.Deny, f.Pass, f.Skip} {
			for _, x := range set {
				if x.Profile == "" {
					x.Profile = f.Profile
				}
				doc, err := patch(base, append([]op{{Op: "replace", Path: "/environment/profile", Value: x.Profile}}, x.Patch...))
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", n, x.Name, err)
				}
				want := []decision.Status{decision.Fail, decision.Pass, decision.Skipped}[i]
				out = append(out, Case{Rule: rule, Name: x.Name, Want: want, Message: x.Message, Doc: doc})
			}
		}
	}
	return out, nil
}

package rego

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/policy/input"
)

// Levels of a rule.
const (
	levelDeny = "deny" // a finding denies
	levelWarn = "warn" // a finding is reported
	levelOff  = "off"  // the rule is not asked
)

// Categories a rule may be sorted into.
func Categories() []string {
	return []string{"identity", "provenance", "data", "quality", "security", "target", "rollout", "people"}
}

var (
	profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	sinceForm   = regexp.MustCompile(`^[0-9]+\.[0-9]+(\.[0-9]+)?$`)
)

// describeProfiles reads custom.category, custom.since and custom.profiles. All three may be left out; what is there must
// be well formed.
func describeProfiles(r *RuleInfo, custom map[string]any) error {
	r.Profiles = map[string]string{}
	if v, ok := custom["category"]; ok {
		if r.Category, _ = v.(string); !slices.Contains(Categories(), r.Category) {
			return fmt.Errorf("custom.category %v is none of %s", v, strings.Join(Categories(), ", "))
		}
	}
	if v, ok := custom["since"]; ok {
		if r.Since, _ = v.(string); !sinceForm.MatchString(r.Since) {
			return fmt.Errorf("custom.since %v is no version in quotes (\"1.0\")", v)
		}
	}
	v, ok := custom["profiles"]
	if !ok {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return errors.New("custom.profiles is no map of profile: level")
	}
	for _, n := range slices.Sorted(maps.Keys(m)) {
		level, _ := m[n].(string)
		switch {
		case !profileName.MatchString(n):
			return fmt.Errorf("custom.profiles: %q is no profile name (lower-case letters, digits, dashes)", n)
		case level != levelDeny && level != levelWarn && level != levelOff:
			return fmt.Errorf("custom.profiles.%s: %v is none of deny, warn, off", n, m[n])
		case r.Mandatory && level != levelDeny:
			return fmt.Errorf("custom.profiles.%s: a mandatory rule denies in every profile, not %s", n, level)
		}
		r.Profiles[n] = level
	}
	return nil
}

// profileNames is the union over the rules, sorted.
func profileNames(rules []rule) []string {
	set := map[string]bool{}
	for _, r := range rules {
		for n := range r.Profiles {
			set[n] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// Profiles lists the profiles that the policy knows, sorted; empty for a policy without any.
func (p *Policy) Profiles() []string { return slices.Clone(p.names) }

// defaultProfile is what an environment has that names none. A policy without profiles takes it to mean its rules' own levels.
const defaultProfile = "baseline"

// knows tells why the policy cannot be evaluated under a profile. A typing error must not choose the rules' own levels,
// which may be weaker than the profile that was meant.
func (p *Policy) knows(profile string) error {
	switch {
	case slices.Contains(p.names, profile), len(p.names) == 0 && profile == defaultProfile:
		return nil
	case len(p.names) == 0:
		return fmt.Errorf("the environment asks for profile %q; this policy has no profiles", profile)
	}
	return fmt.Errorf("the environment asks for profile %q; this policy knows %s", profile, strings.Join(p.names, ", "))
}

// inForce is the level of a rule in an environment: its own, else its profile's, lowered by the environment's enforcement.
// A mandatory rule always denies. For a rule that is off, why says who turned it off.
func (r rule) inForce(env input.Environment) (level, why string) {
	if r.Mandatory {
		return levelDeny, ""
	}
	level = r.Level
	if l, ok := r.Profiles[env.Profile]; ok {
		level = l
	}
	if level == levelOff {
		why = "off in profile " + env.Profile
	}
	for _, e := range env.Enforce {
		if e.Rule != r.ID || level == levelOff {
			continue
		}
		if level = levelWarn; e.Level == levelOff { // enforcement lowers, it never raises
			level, why = levelOff, "off in environment "+env.Name
		}
	}
	return level, why
}

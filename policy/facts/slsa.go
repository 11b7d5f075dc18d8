package facts

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

// packBuild is the build type of waybill pack. It names a commit only when that describes the project exactly.
const packBuild = "https://github.com/waybill-ml/waybill/buildtypes/pack/v1"

// descriptor is SLSA's ResourceDescriptor, as far as it is read.
type descriptor struct {
	URI         string            `json:"uri,omitempty"`
	Name        string            `json:"name,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

var commitID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// commit gives the Git commit that a resource is, or "". gitCommit is SLSA's name of the digest, sha1 that of older tools.
func (d descriptor) commit() string {
	for _, alg := range []string{"gitCommit", "sha1"} {
		if c := strings.ToLower(d.Digest[alg]); commitID.MatchString(c) && (alg == "gitCommit" || gitURI(d.URI)) {
			return c
		}
	}
	return ""
}

func gitURI(u string) bool {
	return strings.HasPrefix(u, "git+") || strings.HasPrefix(u, "git://") || strings.HasPrefix(u, "git@") || strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "ssh://")
}

// repository writes the place of a Git repository in one form, git+<scheme>://host/path without ref, ".git" and closing slash, so
// that it can be compared with what a platform team allows whichever tool wrote it.
func repository(u string) string {
	u = strings.TrimSpace(u)
	scheme, rest, ok := strings.Cut(u, "://")
	if !ok {
		return u
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 {
		rest = rest[:i]
	}
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		if at := strings.IndexByte(rest[slash:], '@'); at >= 0 {
			rest = rest[:slash+at]
		}
	}
	rest = strings.TrimSuffix(strings.TrimRight(rest, "/"), ".git")
	switch scheme {
	case "http", "https", "ssh":
		scheme = "git+" + scheme
	}
	return scheme + "://" + rest
}

// slsa reads SLSA provenance v1, as pack, GitHub's generators and others write it.
func slsa(e *verify.Evidence) (input.Provenance, error) {
	var doc struct {
		BuildDefinition struct {
			BuildType            string         `json:"buildType,omitempty"`
			ExternalParameters   map[string]any `json:"externalParameters,omitempty"`
			ResolvedDependencies []descriptor   `json:"resolvedDependencies,omitempty"`
		} `json:"buildDefinition,omitempty"`
		RunDetails struct {
			Builder struct {
				ID string `json:"id,omitempty"`
			} `json:"builder,omitempty"`
			Metadata struct {
				InvocationID string `json:"invocationId,omitempty"`
				StartedOn    string `json:"startedOn,omitempty"`
				FinishedOn   string `json:"finishedOn,omitempty"`
			} `json:"metadata,omitempty"`
		} `json:"runDetails,omitempty"`
	}
	p := input.Provenance{Bundle: string(e.Bundle), Signer: signer(e)}
	if err := foreign(e.Predicate, &doc); err != nil {
		return p, fmt.Errorf("provenance: %w", err)
	}
	def, run := doc.BuildDefinition, doc.RunDetails
	p.Builder, p.BuildType, p.Invocation = run.Builder.ID, def.BuildType, run.Metadata.InvocationID
	if strings.TrimSpace(p.Builder) == "" {
		return p, fmt.Errorf("provenance: runDetails.builder.id is missing")
	}
	var err error
	if p.Started, err = timeText(run.Metadata.StartedOn); err != nil {
		return p, fmt.Errorf("provenance: startedOn: %w", err)
	}
	if p.Finished, err = timeText(run.Metadata.FinishedOn); err != nil {
		return p, fmt.Errorf("provenance: finishedOn: %w", err)
	}
	for name := range def.ExternalParameters {
		if name == "" {
			return p, fmt.Errorf("provenance: an external parameter has no name")
		}
		p.Parameters = append(p.Parameters, name)
	}
	for _, d := range def.ResolvedDependencies {
		m := input.Material{Name: d.Name, URI: d.URI}
		if x := artifact.Digest("sha256:" + strings.ToLower(d.Digest["sha256"])); d.Digest["sha256"] != "" {
			if _, err := artifact.ParseDigest(string(x)); err != nil {
				return p, fmt.Errorf("provenance: resolvedDependencies: %w", err)
			}
			m.Digest = string(x)
		}
		p.Materials = append(p.Materials, m)
	}
	p.Source = source(def.BuildType, def.ExternalParameters, def.ResolvedDependencies)
	return p, nil
}

// source finds the commit that was built: the one Git repository among the dependencies that the parameters name, else the
// only Git repository there is, else one that the parameters describe themselves with its commit. Several that could be it are none.
func source(buildType string, params map[string]any, deps []descriptor) input.Source {
	var named []string
	var described []descriptor
	look(params, func(s string) { named = append(named, repository(s)) }, func(d descriptor) { described = append(described, d) })
	var git, asked []descriptor
	for _, d := range deps {
		if d.commit() == "" {
			continue
		}
		git = append(git, d)
		if slices.Contains(named, repository(d.URI)) {
			asked = append(asked, d)
		}
	}
	for _, list := range [][]descriptor{asked, git, described} {
		if one, ok := only(list); ok {
			return input.Source{URI: repository(one.URI), Commit: one.commit(), Clean: clean(buildType, one)}
		}
		if len(list) > 0 {
			break
		}
	}
	return input.Source{}
}

// only gives the repository at one commit that every entry names.
func only(list []descriptor) (descriptor, bool) {
	for _, d := range list {
		if d.commit() != list[0].commit() || repository(d.URI) != repository(list[0].URI) {
			return descriptor{}, false
		}
	}
	if len(list) == 0 {
		return descriptor{}, false
	}
	return list[0], true
}

// clean tells whether the files that were built are those of the commit: by annotations (clean, dirty, modified) of the
// repository; pack says so by naming the commit at all. Annotations that contradict each other mean no.
func clean(buildType string, d descriptor) string {
	said := ""
	for key, want := range map[string]bool{"clean": true, "dirty": false, "modified": false} {
		if v, ok := d.Annotations[key].(bool); ok && v != want {
			return "no"
		} else if ok {
			said = "yes"
		}
	}
	if said == "" && buildType == packBuild {
		return "yes"
	}
	return said
}

// look visits every string below v, and every object that is a resource at a commit. v is as deep as a statement may be.
func look(v any, text func(string), resource func(descriptor)) {
	switch x := v.(type) {
	case string:
		text(x)
	case []any:
		for _, e := range x {
			look(e, text, resource)
		}
	case map[string]any:
		if u, ok := x["uri"].(string); ok && u != "" {
			d := descriptor{URI: u, Digest: map[string]string{}}
			if m, ok := x["digest"].(map[string]any); ok {
				for k, v := range m {
					if s, ok := v.(string); ok {
						d.Digest[k] = s
					}
				}
			}
			if d.commit() != "" {
				resource(d)
			}
		}
		for _, e := range x {
			look(e, text, resource)
		}
	}
}

// timeText brings a time that somebody else wrote into the form of the document; "" stays.
func timeText(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return "", err
	}
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return "", fmt.Errorf("year %d", y)
	}
	return stated(t), nil
}

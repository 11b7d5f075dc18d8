package facts

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

// spdx reads one verified SPDX document, 2.x or 3.x in JSON.
func (c *collector) spdx(e *verify.Evidence) error {
	var head struct {
		Version string `json:"spdxVersion,omitempty"`
	}
	if err := foreign(e.Predicate, &head); err != nil {
		return fmt.Errorf("SPDX document: %w", err)
	}
	read := (*collector).spdx3
	if head.Version != "" {
		read = (*collector).spdx2
	}
	b, err := read(c, e)
	if err == nil {
		err = input.Fits(b.facts(c.layers))
	}
	if err != nil {
		return fmt.Errorf("SPDX document: %w", err)
	}
	c.bills = append(c.bills, b)
	return nil
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm,omitempty"`
	Value     string `json:"checksumValue,omitempty"`
}

func spdxDigests(list []spdxChecksum) []string {
	var out []string
	for _, c := range list {
		if c.Algorithm == "SHA256" {
			out = append(out, "sha256:"+strings.ToLower(c.Value))
		}
	}
	return out
}

// first gives the first license that says something: what was concluded before what was declared.
func firstLicense(list ...string) []string {
	for _, s := range list {
		if s = license(s); s != "" {
			return []string{s}
		}
	}
	return nil
}

func (c *collector) spdx2(e *verify.Evidence) (*bill, error) {
	var doc struct {
		Version      string `json:"spdxVersion,omitempty"`
		CreationInfo struct {
			Created string `json:"created,omitempty"`
		} `json:"creationInfo,omitempty"`
		Describes []string `json:"documentDescribes,omitempty"`
		Packages  []struct {
			ID        string         `json:"SPDXID,omitempty"`
			Name      string         `json:"name,omitempty"`
			Version   string         `json:"versionInfo,omitempty"`
			Concluded string         `json:"licenseConcluded,omitempty"`
			Declared  string         `json:"licenseDeclared,omitempty"`
			Purpose   string         `json:"primaryPackagePurpose,omitempty"`
			Checksums []spdxChecksum `json:"checksums,omitempty"`
		} `json:"packages,omitempty"`
		Files []struct {
			Name      string         `json:"fileName,omitempty"`
			Checksums []spdxChecksum `json:"checksums,omitempty"`
		} `json:"files,omitempty"`
		Relationships []struct {
			From string `json:"spdxElementId,omitempty"`
			To   string `json:"relatedSpdxElement,omitempty"`
			Type string `json:"relationshipType,omitempty"`
		} `json:"relationships,omitempty"`
	}
	if err := foreign(e.Predicate, &doc); err != nil {
		return nil, err
	}
	version, ok := strings.CutPrefix(doc.Version, "SPDX-")
	if !ok {
		return nil, fmt.Errorf("spdxVersion %q", doc.Version)
	}
	at, err := c.documentTime(doc.CreationInfo.Created, e)
	if err != nil {
		return nil, fmt.Errorf("creationInfo.created: %w", err)
	}
	b := &bill{bundle: string(e.Bundle), at: at, format: "spdx", version: version}
	for _, r := range doc.Relationships {
		switch {
		case r.Type == "DESCRIBES" && r.From == "SPDXRef-DOCUMENT":
			doc.Describes = append(doc.Describes, r.To)
		case r.Type == "DESCRIBED_BY" && r.To == "SPDXRef-DOCUMENT":
			doc.Describes = append(doc.Describes, r.From)
		}
	}
	for _, p := range doc.Packages {
		b.parts = append(b.parts, part{name: named(or(p.Name, p.ID), p.Version), digests: spdxDigests(p.Checksums), licenses: firstLicense(p.Concluded, p.Declared),
			exempt: p.Purpose == "FILE" || slices.Contains(doc.Describes, p.ID)})
	}
	for _, f := range doc.Files {
		b.parts = append(b.parts, part{name: or(f.Name, "unnamed"), digests: spdxDigests(f.Checksums), exempt: true})
	}
	return b, nil
}

func or(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return "unnamed"
}

// spdx3 reads the elements of a JSON-LD graph by the short names of SPDX's context.
func (c *collector) spdx3(e *verify.Evidence) (*bill, error) {
	var doc struct {
		Graph []struct {
			Type        string   `json:"type,omitempty"`
			ID          string   `json:"spdxId,omitempty"`
			Name        string   `json:"name,omitempty"`
			Created     string   `json:"created,omitempty"`
			SpecVersion string   `json:"specVersion,omitempty"`
			Version     string   `json:"software_packageVersion,omitempty"`
			Purpose     string   `json:"software_primaryPurpose,omitempty"`
			Root        []string `json:"rootElement,omitempty"`
			Hashes      []struct {
				Algorithm string `json:"algorithm,omitempty"`
				Value     string `json:"hashValue,omitempty"`
			} `json:"verifiedUsing,omitempty"`
			From         string   `json:"from,omitempty"`
			To           []string `json:"to,omitempty"`
			Relationship string   `json:"relationshipType,omitempty"`
			Expression   string   `json:"simplelicensing_licenseExpression,omitempty"`
		} `json:"@graph,omitempty"`
	}
	if err := foreign(e.Predicate, &doc); err != nil {
		return nil, err
	}
	b := &bill{bundle: string(e.Bundle), format: "spdx"}
	created := ""
	roots, expressions := map[string]bool{}, map[string]string{}
	concluded, said := map[string][]string{}, map[string][]string{}
	for _, x := range doc.Graph {
		switch x.Type {
		case "CreationInfo":
			if x.Created > created {
				created = x.Created
			}
			if x.SpecVersion > b.version {
				b.version = x.SpecVersion
			}
		case "SpdxDocument", "software_Sbom", "Bom":
			for _, r := range x.Root {
				roots[r] = true
			}
		case "Relationship", "LifecycleScopedRelationship":
			switch x.Relationship {
			case "hasConcludedLicense":
				concluded[x.From] = append(concluded[x.From], x.To...)
			case "hasDeclaredLicense":
				said[x.From] = append(said[x.From], x.To...)
			}
		}
		if x.Expression != "" {
			expressions[x.ID] = x.Expression
		}
	}
	if b.version == "" {
		return nil, errors.New("no CreationInfo with a specVersion")
	}
	var err error
	if b.at, err = c.documentTime(created, e); err != nil {
		return nil, fmt.Errorf("created: %w", err)
	}
	licenses := func(ids []string) []string {
		var out []string
		for _, id := range ids {
			s := expressions[id]
			if s == "" {
				s, _ = strings.CutPrefix(id, "https://spdx.org/licenses/")
			}
			if strings.Contains(s, "NoAssertion") || strings.HasSuffix(s, "NoneLicense") {
				continue
			}
			if s = license(s); s != "" {
				out = append(out, s)
			}
		}
		return out
	}
	for _, x := range doc.Graph {
		switch x.Type {
		case "software_Package", "software_File", "software_Snippet", "ai_AIPackage", "dataset_DatasetPackage":
		default:
			continue
		}
		p := part{name: named(or(x.Name, x.ID), x.Version), licenses: licenses(concluded[x.ID])}
		if len(p.licenses) == 0 {
			p.licenses = licenses(said[x.ID])
		}
		p.exempt = x.Type != "software_Package" || roots[x.ID] || x.Purpose == "file" || x.Purpose == "data" || x.Purpose == "model"
		for _, h := range x.Hashes {
			if h.Algorithm == "sha256" {
				p.digests = append(p.digests, "sha256:"+strings.ToLower(h.Value))
			}
		}
		b.parts = append(b.parts, p)
	}
	return b, nil
}

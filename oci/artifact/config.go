package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Config is the ModelPack model config (model-spec, config-schema.json). Its schema is closed: facts of ours go into
// the interface document, annotations or referrers.
type Config struct {
	Descriptor ModelDescriptor `json:"descriptor"`
	Model      ModelConfig     `json:"config"`
	ModelFS    ModelFS         `json:"modelfs"`
}

// ModelDescriptor describes the model to people.
type ModelDescriptor struct {
	CreatedAt   *time.Time `json:"createdAt,omitempty"` // left out by default: it would make equal inputs differ
	Authors     []string   `json:"authors,omitempty"`
	Family      string     `json:"family,omitempty"`
	Name        string     `json:"name,omitempty"`
	DocURL      string     `json:"docURL,omitempty"`
	SourceURL   string     `json:"sourceURL,omitempty"`
	DatasetsURL []string   `json:"datasetsURL,omitempty"`
	Version     string     `json:"version,omitempty"`
	Revision    string     `json:"revision,omitempty"`
	Vendor      string     `json:"vendor,omitempty"`
	Licenses    []string   `json:"licenses,omitempty"` // SPDX expressions
	Title       string     `json:"title,omitempty"`
	Description string     `json:"description,omitempty"`
}

// ModelConfig tells the kind of model.
type ModelConfig struct {
	Architecture string             `json:"architecture,omitempty"`
	Format       string             `json:"format,omitempty"` // "wasm"
	ParamSize    string             `json:"paramSize,omitempty"`
	Precision    string             `json:"precision,omitempty"`
	Quantization string             `json:"quantization,omitempty"`
	Capabilities *ModelCapabilities `json:"capabilities,omitempty"`
}

// ModelCapabilities is the part of ModelPack's capabilities that a compiled model can have.
type ModelCapabilities struct {
	InputTypes      []string   `json:"inputTypes,omitempty"` // text image audio video embedding other
	OutputTypes     []string   `json:"outputTypes,omitempty"`
	KnowledgeCutoff *time.Time `json:"knowledgeCutoff,omitempty"`
	Reasoning       *bool      `json:"reasoning,omitempty"`
	ToolUsage       *bool      `json:"toolUsage,omitempty"`
	Reward          *bool      `json:"reward,omitempty"`
	Languages       []string   `json:"languages,omitempty"` // ISO 639-1
}

// ModelFS lists the digests of the uncompressed layers, in layer order.
type ModelFS struct {
	Type    string   `json:"type"`
	DiffIDs []Digest `json:"diffIds"`
}

func (c Config) check() error {
	if c.Descriptor.Name == "" {
		return errors.New("model config: the name is missing")
	}
	if c.ModelFS.Type != "layers" || len(c.ModelFS.DiffIDs) == 0 {
		return errors.New("model config: modelfs must list the layers")
	}
	for _, d := range c.ModelFS.DiffIDs {
		if _, err := ParseDigest(string(d)); err != nil {
			return diag.Errorf("model config: diffIds: %w", err)
		}
	}
	if k := c.Model.Capabilities; k != nil {
		for _, t := range slices.Concat(k.InputTypes, k.OutputTypes) {
			switch t {
			case "text", "image", "audio", "video", "embedding", "other":
			default:
				return diag.Errorf("model config: unknown modality %q", t)
			}
		}
		for _, l := range k.Languages {
			if len(l) != 2 || l[0] < 'a' || l[0] > 'z' || l[1] < 'a' || l[1] > 'z' {
				return diag.Errorf("model config: %q is no two-letter language code", l)
			}
		}
	}
	return nil
}

// ParseConfig reads a model config strictly (unknown members are refused, as in the schema) and checks that its
// diffIds are the digests of m's layers.
func ParseConfig(b []byte, m *Model) (Config, error) {
	var c Config
	if len(b) > MaxConfig {
		return c, diag.Errorf("model config of %d bytes is larger than %d", len(b), MaxConfig)
	}
	if err := strictKeys(b); err != nil {
		return c, diag.Errorf("model config: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, diag.Errorf("model config: %w", err)
	}
	if err := c.check(); err != nil {
		return c, err
	}
	if len(c.ModelFS.DiffIDs) != len(m.Layers) {
		return c, diag.Errorf("model config lists %d layers, the manifest %d", len(c.ModelFS.DiffIDs), len(m.Layers))
	}
	for i, l := range m.Layers {
		if c.ModelFS.DiffIDs[i] != l.Digest {
			return c, diag.Errorf("model config: diffId %d is %s, the layer %s is %s", i, c.ModelFS.DiffIDs[i], l.Path, l.Digest)
		}
	}
	return c, nil
}

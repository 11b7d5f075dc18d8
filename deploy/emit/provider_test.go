package emit_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// TestMain is also a provider of Terraform, when it is started under the name of one: Terraform and OpenTofu ask it for the schemas of the
// published provider of that name, and hold a module against them. It does nothing else.
func TestMain(m *testing.M) {
	if kind, is := strings.CutPrefix(filepath.Base(os.Args[0]), "terraform-provider-"); is {
		if err := provide(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// schemas are what testdata/providers/extract.py read.
//
//go:embed testdata/providers/schemas.json
var schemas []byte

type published struct {
	Version   string
	Resources map[string]block
}

type block struct {
	Attributes map[string]struct {
		Type               any
		Required, Computed bool
	}
	Blocks map[string]struct {
		Required, One bool
		Block         block
	}
}

func provide(kind string) error {
	var all map[string]published
	if err := json.Unmarshal(schemas, &all); err != nil {
		return err
	}
	for source, p := range all {
		if filepath.Base(source) != kind {
			continue
		}
		x := &provider{resources: map[string]*tfprotov5.Schema{}}
		for n, b := range p.Resources {
			s, err := b.schema()
			if err != nil {
				return fmt.Errorf("%s: %w", n, err)
			}
			x.resources[n] = &tfprotov5.Schema{Block: s}
		}
		return tf5server.Serve("registry.terraform.io/"+source, func() tfprotov5.ProviderServer { return x })
	}
	return fmt.Errorf("%s: there is no such provider here", kind)
}

func (b block) schema() (*tfprotov5.SchemaBlock, error) {
	out := &tfprotov5.SchemaBlock{}
	for n, a := range b.Attributes {
		typ, err := typeOf(a.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n, err)
		}
		out.Attributes = append(out.Attributes, &tfprotov5.SchemaAttribute{Name: n, Type: typ, Required: a.Required, Optional: !a.Required && !a.Computed, Computed: !a.Required})
	}
	for n, x := range b.Blocks {
		inner, err := x.Block.schema()
		if err != nil {
			return nil, err
		}
		nested := &tfprotov5.SchemaNestedBlock{TypeName: n, Block: inner, Nesting: tfprotov5.SchemaNestedBlockNestingModeList}
		if x.Required {
			nested.MinItems = 1
		}
		if x.One {
			nested.MaxItems = 1
		}
		out.BlockTypes = append(out.BlockTypes, nested)
	}
	return out, nil
}

func typeOf(v any) (tftypes.Type, error) {
	switch v := v.(type) {
	case string:
		t, ok := map[string]tftypes.Type{"string": tftypes.String, "number": tftypes.Number, "bool": tftypes.Bool, "dynamic": tftypes.DynamicPseudoType}[v]
		if ok {
			return t, nil
		}
	case []any:
		of, err := typeOf(v[len(v)-1])
		if err != nil {
			return nil, err
		}
		switch v[0] {
		case "list":
			return tftypes.List{ElementType: of}, nil
		case "map":
			return tftypes.Map{ElementType: of}, nil
		}
	}
	return nil, fmt.Errorf("%v is no type", v)
}

// provider answers what validate asks. Whatever else it is asked ends it.
type provider struct {
	tfprotov5.ProviderServer
	resources map[string]*tfprotov5.Schema
}

func (p *provider) GetMetadata(context.Context, *tfprotov5.GetMetadataRequest) (*tfprotov5.GetMetadataResponse, error) {
	out := &tfprotov5.GetMetadataResponse{}
	for n := range p.resources {
		out.Resources = append(out.Resources, tfprotov5.ResourceMetadata{TypeName: n})
	}
	return out, nil
}

func (p *provider) GetProviderSchema(context.Context, *tfprotov5.GetProviderSchemaRequest) (*tfprotov5.GetProviderSchemaResponse, error) {
	return &tfprotov5.GetProviderSchemaResponse{Provider: &tfprotov5.Schema{Block: &tfprotov5.SchemaBlock{}}, ResourceSchemas: p.resources}, nil
}

func (p *provider) PrepareProviderConfig(_ context.Context, r *tfprotov5.PrepareProviderConfigRequest) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (p *provider) GetResourceIdentitySchemas(context.Context, *tfprotov5.GetResourceIdentitySchemasRequest) (*tfprotov5.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov5.GetResourceIdentitySchemasResponse{}, nil
}

func (p *provider) ValidateResourceTypeConfig(context.Context, *tfprotov5.ValidateResourceTypeConfigRequest) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (p *provider) StopProvider(context.Context, *tfprotov5.StopProviderRequest) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

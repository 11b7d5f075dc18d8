package emit_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"

	"github.com/waybill-ml/waybill/deploy/emit"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// module is what Terraform's own parser makes of a file: the values of each resource, by TYPE.NAME.
func module(t *testing.T, f emit.File) map[string]cty.Value {
	t.Helper()
	file, diags := hcljson.Parse(f.Data, f.Path)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, diags := file.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "terraform"}, {Type: "resource", LabelNames: []string{"type", "name"}}, {Type: "output", LabelNames: []string{"name"}},
	}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	known := map[string][]string{}
	for _, b := range content.Blocks.OfType("resource") {
		known[b.Labels[0]] = append(known[b.Labels[0]], b.Labels[1])
	}
	scope := &hcl.EvalContext{Variables: map[string]cty.Value{}}
	for typ, names := range known {
		all := map[string]cty.Value{}
		for _, n := range names {
			all[n] = cty.DynamicVal
		}
		scope.Variables[typ] = cty.ObjectVal(all)
	}
	out := map[string]cty.Value{}
	for _, b := range content.Blocks {
		attrs, diags := b.Body.JustAttributes()
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		values := map[string]cty.Value{}
		for name, a := range attrs {
			if name == "depends_on" { // references without an expression around them
				list, diags := hcl.ExprList(a.Expr)
				if diags.HasErrors() {
					t.Fatal(diags)
				}
				for _, x := range list {
					tr, diags := hcl.AbsTraversalForExpr(x)
					if diags.HasErrors() || len(tr) != 2 || !slices.Contains(known[tr.RootName()], tr[1].(hcl.TraverseAttr).Name) {
						t.Errorf("%s: %s depends on something that is not there: %v", f.Path, strings.Join(b.Labels, "."), diags)
					}
				}
				continue
			}
			v, diags := a.Expr.Value(scope)
			if diags.HasErrors() {
				t.Errorf("%s: %s.%s: %v", f.Path, strings.Join(b.Labels, "."), name, diags)
			}
			values[name] = v
		}
		out[strings.Join(append([]string{b.Type}, b.Labels...), ".")] = cty.ObjectVal(values)
	}
	return out
}

// has tells whether a text is somewhere in a value.
func has(v cty.Value, s string) (found bool) {
	_ = cty.Walk(v, func(_ cty.Path, x cty.Value) (bool, error) {
		found = found || x.IsKnown() && !x.IsNull() && x.Type() == cty.String && x.AsString() == s
		return true, nil
	})
	return found
}

// Terraform's own parser of the JSON syntax takes each module, every reference leads to a resource of it, and whatever stands in a
// variable arrives as it is.
func TestTerraformReads(t *testing.T) {
	for _, s := range append(slices.Clone(nasty), "plain") {
		env := map[string]any{"VALUE": s}
		files, err := emit.Render("prod", []emit.Place{place(t, lambda(env)), place(t, run(env)), place(t, azure(env))})
		if err != nil {
			t.Fatal(err)
		}
		modules := 0
		for _, f := range files {
			if f.Tool != targets.Terraform {
				continue
			}
			modules++
			where := map[string]string{"fn": "resource.aws_lambda_function.function", "run": "resource.google_cloud_run_v2_service.service", "az": "resource.azapi_resource.deployment"}[strings.Split(f.Path, "/")[1]]
			m := module(t, f)
			if !has(m[where], s) || !has(m[where], string(digest)) {
				t.Errorf("%s: %q does not arrive: %#v", f.Path, s, m[where])
			}
		}
		if modules != 3 {
			t.Errorf("%d modules", modules)
		}
	}
}

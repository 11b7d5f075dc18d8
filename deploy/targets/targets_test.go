package targets

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/deploy"
)

type lambdaLike struct {
	Function string            `json:"function" need:"true"`
	Memory   int               `json:"memory"`
	Public   bool              `json:"public"`
	Share    float64           `json:"share"`
	Subnets  []string          `json:"subnets"`
	Env      map[string]string `json:"env"`
	VPC      struct {
		ID string `json:"id" need:"true"`
	} `json:"vpc"`
}

func (s *lambdaLike) Check() error {
	if s.Memory < 128 {
		return &Error{Path: "memory", Err: errors.New("at least 128"), Hints: []string{"memory: 128"}}
	}
	if s.Function == "no" {
		return errors.New("no such function")
	}
	return nil
}

func (s *lambdaLike) Open(context.Context, *slog.Logger) (deploy.Target, error) { return nil, nil }

func kinds() []Kind {
	f := func() Settings { return &lambdaLike{Memory: 512} }
	return []Kind{{Name: "lambda", Runs: Image, Settings: f}, {Name: "workers", Runs: Bundle, Settings: f}}
}

func list(t *testing.T, text string) (fromYAML, fromJSON []map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &fromYAML); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &fromJSON); err != nil {
		t.Fatal(err)
	}
	return fromYAML, fromJSON
}

func TestParse(t *testing.T) {
	a, b := list(t, `
- {name: us, kind: lambda, image: "reg.example:5000/ml/churn", function: churn, memory: 1024, public: true, share: 0.5, subnets: [a, b], env: {A: x}, vpc: {id: v}, wait: 5m, weight: 10}
- {name: edge, kind: workers, function: f, share: 2}
`)
	want := &lambdaLike{Function: "churn", Memory: 1024, Public: true, Share: 0.5, Subnets: []string{"a", "b"}, Env: map[string]string{"A": "x"}}
	want.VPC.ID = "v"
	for _, l := range [][]map[string]any{a, b} {
		got, err := Parse(l, kinds())
		if err != nil {
			t.Fatal(err)
		}
		if e := got[0]; e.Name != "us" || e.Kind != "lambda" || e.Runs != Image || e.Image != "reg.example:5000/ml/churn" || e.Weight != 10 || e.Wait != 5*time.Minute || !reflect.DeepEqual(e.Settings, want) {
			t.Errorf("%+v %+v", e, e.Settings)
		}
		if e := got[1]; e.Runs != Bundle || e.Settings.(*lambdaLike).Memory != 512 || e.Settings.(*lambdaLike).Share != 2 {
			t.Errorf("%+v %+v", e, e.Settings)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const good = `name: a, kind: lambda, image: reg.example/m, function: f`
	for text, want := range map[string]string{
		`- {name: a}`:                                                         "targets[0]: it has no kind|kinds: lambda, workers",
		`- {name: a, kind: 3}`:                                                "targets[0].kind: a text is expected, this is the number 3",
		`- {name: a, kind: lamda}`:                                            `targets[0].kind: there is no kind "lamda"|did you mean "lambda"?`,
		`- {name: a, kind: elsewhere}`:                                        `there is no kind "elsewhere"|kinds: lambda, workers`,
		`- {` + good + `, memori: 1}`:                                         `targets[0].memori: unknown key|did you mean "memory"?`,
		`- {` + good + `, q: 1}`:                                              `targets[0].q: unknown key|known keys here: name, kind`,
		`- {` + good + `, vpc: {ib: v}}`:                                      `targets[0].vpc.ib: unknown key|did you mean "id"?`,
		`- {` + good + `, vpc: {}}`:                                           `targets[0].vpc: id is missing`,
		`- {` + good + `, memory: 12}`:                                        "targets[0].memory: at least 128|memory: 128",
		`- {` + good + `, memory: 512.5}`:                                     "targets[0].memory: a whole number is expected, this is the number 512.5",
		`- {` + good + `, memory: "512"}`:                                     `targets[0].memory: a whole number is expected, this is the text "512"`,
		`- {` + good + `, memory: 1e300}`:                                     "a whole number is expected",
		`- {` + good + `, memory: null}`:                                      "this is nothing",
		`- {` + good + `, public: 1}`:                                         "targets[0].public: true or false is expected",
		`- {` + good + `, subnets: a}`:                                        "targets[0].subnets: a list is expected",
		`- {` + good + `, subnets: [a, 1]}`:                                   "targets[0].subnets[1]: a text is expected",
		`- {` + good + `, env: [a]}`:                                          "targets[0].env: a mapping is expected, this is a list",
		`- {` + good + `, env: {A: 1}}`:                                       "targets[0].env.A: a text is expected",
		`- {` + good + `, share: {a: b}}`:                                     "targets[0].share: a number is expected, this is a mapping",
		`- {` + good + `, wait: soon}`:                                        "targets[0].wait: \"soon\": a length of time",
		`- {` + good + `, wait: -5m}`:                                         "targets[0].wait",
		`- {` + good + `, weight: 101}`:                                       "targets[0].weight: 101 is no percentage",
		"- {" + good + "}\n- {" + good + "}":                                  `targets[1].name: "a" is the name of targets[0] too`,
		`- {kind: lambda, function: f}`:                                       "targets[0]: name is missing",
		`- {name: a, kind: lambda}`:                                           "targets[0]: function is missing",
		`- {name: A, kind: workers, function: f}`:                             "targets[0].name",
		`- {name: a, kind: lambda, function: f}`:                              "targets[0]: image is missing",
		`- {name: a, kind: lambda, function: "no", image: reg.example/m}`:     "targets[0]: no such function",
		`- {name: a, kind: workers, function: f, image: reg.example/m}`:       "targets[0].image: targets of kind workers run no images",
		`- {name: a, kind: lambda, function: f, image: "reg.example/m:1"}`:    "targets[0].image: reg.example/m:1: a repository with its host and without tag",
		`- {name: a, kind: lambda, function: f, image: "churn"}`:              "a repository with its host",
		`- {name: a, kind: lambda, function: f, image: "reg.example/m@sha2"}`: "targets[0].image: reg.example/m@sha2: a repository without digest",
	} {
		a, b := list(t, text)
		for _, l := range [][]map[string]any{a, b} {
			_, err := Parse(l, kinds())
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("%s: %v", text, err)
				continue
			}
			says, hint, _ := strings.Cut(want, "|")
			if !strings.Contains(err.Error(), says) || !strings.Contains(strings.Join(e.Hints, "\n"), hint) {
				t.Errorf("%s: %v %q, want %q", text, err, e.Hints, want)
			}
		}
	}
	if _, err := Parse(make([]map[string]any, MaxTargets+1), kinds()); err == nil {
		t.Error("any number of targets is taken")
	}
}

// FuzzParse: whatever the signed document holds, Parse gives targets with a name, or an error with a place.
func FuzzParse(f *testing.F) {
	f.Add(`[{"name":"a","kind":"lambda","image":"reg.example/m","function":"f","memory":1024}]`)
	f.Add(`[{"kind":"workers","name":"b","function":null,"vpc":{"id":3}}]`)
	f.Add(`[null,{"kind":[]}]`)
	f.Fuzz(func(t *testing.T, raw string) {
		var l []map[string]any
		if json.Unmarshal([]byte(raw), &l) != nil {
			return
		}
		got, err := Parse(l, kinds())
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%v is no *Error", err)
		}
		for _, x := range got {
			if x.Name == "" || x.Settings == nil || x.Runs == Image && x.Image == "" {
				t.Fatalf("%+v", x)
			}
		}
	})
}

package scoring

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// protocol is a model with the inputs, which gives its first input back as the output, and remembers what it was asked.
func protocol(t *testing.T, inputs string, asked *string) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/health/ready", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ready":true}`) })
	mux.HandleFunc("GET /v2/models/m", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"inputs":`+inputs+`}`) })
	mux.HandleFunc("POST /v2/models/m/infer", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*asked = string(b)
		var req struct{ Inputs []tensor }
		if err := json.Unmarshal(b, &req); err != nil {
			refuse(w, 400, err)
			return
		}
		w.Header().Set("Waybill-Digest", "sha256:00")
		for i := range req.Inputs {
			req.Inputs[i].Name = "out_" + req.Inputs[i].Name
		}
		reply(w, 200, map[string]any{"outputs": req.Inputs})
	})
	return mux
}

const (
	matrix = `[{"name":"x","datatype":"FP32","shape":[-1,2]}]`
	column = `[{"name":"x","datatype":"FP32","shape":[-1]}]`
	two    = `[{"name":"a","datatype":"INT64","shape":[-1,1]},{"name":"s","datatype":"BYTES","shape":[-1,1]}]`
)

func TestInvocations(t *testing.T) {
	for _, c := range []struct {
		inputs, contentType, accept, body string
		status                            int
		want                              string
	}{
		{matrix, "application/json", "", `{"instances":[[1,2.50],[3,1e-7]]}`, 200, `{"predictions":[[1,2.50],[3,1e-7]]}`},
		{matrix, "", "", `{"inputs":[[1,2]]}`, 200, `{"predictions":[[1,2]]}`},
		{matrix, "application/json", "", `{"instances":[{"x":[1,2]}],"parameters":{"k":1}}`, 200, `{"predictions":[[1,2]]}`},
		{matrix, "text/csv; charset=utf-8", "", "1,2\n3, .5\n", 200, "1,2\n3,0.5\n"},
		{matrix, "text/csv", "application/json", "1,2", 200, `{"predictions":[[1,2]]}`},
		{column, "text/csv", "", "7\n8\n", 200, "7\n8\n"},
		{column, "application/json", "", `{"instances":[7,8]}`, 200, `{"predictions":[7,8]}`},
		{two, "application/json", "", `{"instances":[{"a":9007199254740993,"s":"x,\"y"}]}`, 200, `{"predictions":[{"out_a":[9007199254740993],"out_s":["x,\"y"]}]}`},
		{two, "text/csv", "", "1,\"a,b\"\n", 200, "1,\"a,b\"\n"},
		{matrix, "application/json", "", `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}`, 200, `"out_x"`},
		{matrix, "application/json", "", `{"instances":[[1,2],[3]]}`, 400, "that of the rows before"},
		{matrix, "application/json", "", `{"instances":[[1,[2]]]}`, 400, "different lengths"},
		{matrix, "application/json", "", `{"instances":[[1,null]]}`, 400, "no value of a tensor"},
		{matrix, "application/json", "", `{"instances":[5]}`, 400, "a row has 0 dimensions, the model's 1"},
		{matrix, "application/json", "", `{"instances":[]}`, 400, "empty"},
		{matrix, "application/json", "", `{"instances":[` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `]}`, 400, "deeper than"},
		{matrix, "application/json", "", `{"rows":[]}`, 400, "neither"},
		{matrix, "application/json", "", `{"instances":[[1,2]],"inputs":[[1,2]]}`, 400, "and"},
		{matrix, "application/json", "", `nonsense`, 400, "no JSON object"},
		{two, "application/json", "", `{"instances":[[1,2]]}`, 400, "an object of their names"},
		{two, "application/json", "", `{"instances":[{"a":1}]}`, 400, `s\" is missing`},
		{two, "application/json", "", `{"instances":[{"a":1,"s":"x","z":1}]}`, 400, `no input \"z`},
		{two, "text/csv", "", "1,2,3\n", 400, "3 columns"},
		{matrix, "text/csv", "", "1,x\n", 400, "no number"},
		{matrix, "text/csv", "", "1,NaN\n", 400, "no finite number"},
		{matrix, "text/csv", "", "", 400, "no row"},
		{matrix, "application/x-npy", "", "x", 415, "content type"},
		{matrix, "text/csv", "", strings.Repeat("1,2\n", 1000), 413, "more than 2000"},
	} {
		var asked string
		h := SageMaker(Config{Model: "m", Protocol: protocol(t, c.inputs, &asked), MaxBody: 2000, Parallel: 3})
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/invocations", strings.NewReader(c.body))
		if c.contentType != "" {
			r.Header.Set("Content-Type", c.contentType)
		}
		if c.accept != "" {
			r.Header.Set("Accept", c.accept)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got := w.Body.String()
		if w.Code != c.status || !strings.Contains(got, c.want) || c.status == 200 && w.Header().Get("Waybill-Digest") == "" {
			t.Errorf("%s %.60q: %d %s, asked %s", c.contentType, c.body, w.Code, got, asked)
		}
	}
}

func TestRoutes(t *testing.T) {
	var asked string
	c := Config{Model: "m", Protocol: protocol(t, matrix, &asked), MaxBody: 2000, Parallel: 3}
	vertex, err := Vertex(c, "/health", "/predict")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		h            http.Handler
		method, path string
		status       int
		want         string
	}{
		{SageMaker(c), "GET", "/ping", 200, ""},
		{SageMaker(c), "GET", "/execution-parameters", 200, `"MaxConcurrentTransforms":3`},
		{SageMaker(c), "GET", "/invocations", 405, ""},
		{SageMaker(c), "GET", "/v2/health/ready", 200, "ready"},
		{vertex, "GET", "/health", 200, ""},
		{vertex, "POST", "/predict", 200, `{"predictions":[[1,2]]}`},
		{vertex, "GET", "/predict", 405, ""},
		{vertex, "POST", "/ping", 404, ""},
		{vertex, "GET", "/v2/models/m", 200, "inputs"},
	} {
		w := httptest.NewRecorder()
		x.h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), x.method, x.path, strings.NewReader(`{"instances":[[1,2]]}`)))
		if w.Code != x.status || !strings.Contains(w.Body.String(), x.want) || x.path == "/ping" && x.status == 200 && w.Body.Len() > 0 {
			t.Errorf("%s %s: %d %s", x.method, x.path, w.Code, w.Body)
		}
	}
	unready := c
	unready.Protocol = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	for _, p := range []string{"/ping", "/invocations"} {
		w := httptest.NewRecorder()
		method := map[string]string{"/ping": "GET", "/invocations": "POST"}[p]
		SageMaker(unready).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, p, strings.NewReader(`{"instances":[1]}`)))
		if w.Code != 503 {
			t.Errorf("%s of a server that is not ready: %d", p, w.Code)
		}
	}
	for _, r := range [][2]string{{"health", "/p"}, {"/h", ""}, {"/x", "/x"}, {"/{a}", "/p"}} {
		if _, err := Vertex(c, r[0], r[1]); err == nil {
			t.Errorf("routes %q are taken", r)
		}
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(`{"instances":[[1,2.50],[3,1e-7]]}`), false)
	f.Add([]byte(`{"inputs":[{"x":[1,2]}]}`), false)
	f.Add([]byte("1,2\n3,.5\n"), true)
	f.Add([]byte("\"a\",\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, isCSV bool) {
		for _, ports := range []string{matrix, column, two} {
			var ps []port
			if err := json.Unmarshal([]byte(ports), &ps); err != nil {
				t.Fatal(err)
			}
			read := readJSON
			if isCSV {
				read = readCSV
			}
			r, err := read(b, ps)
			if err != nil || r == nil {
				continue
			}
			for _, in := range r.inputs {
				n := int64(1)
				for _, d := range in.Shape {
					n *= d
				}
				if n != int64(len(in.Data)) || in.Shape[0] != r.n {
					t.Fatalf("%d values for shape %v of %d rows", len(in.Data), in.Shape, r.n)
				}
			}
			if _, err := json.Marshal(r.inputs); err != nil {
				t.Fatal(err)
			}
		}
	})
}

package scoring

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of a row.
const maxDepth = 16

// tensor is an input of the protocol; its data are JSON values, flat.
type tensor struct {
	Name     string            `json:"name"`
	Datatype string            `json:"datatype"`
	Shape    []int64           `json:"shape"`
	Data     []json.RawMessage `json:"data"`
}

// rows are requests that came as rows: the first dimension of every input.
type rows struct {
	n      int64
	inputs []tensor
}

// readJSON reads {"instances": [...]}, or {"inputs": [...]} of rows; nil without an error is a request of the Open Inference Protocol.
// A row is the value of the only input, or an object of values by the names of the inputs.
func readJSON(body []byte, ports []port) (*rows, error) {
	var req map[string]json.RawMessage
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, fmt.Errorf("the request is no JSON object: %w", err)
	}
	raw, ok := req["instances"]
	if other, also := req["inputs"]; also {
		if ok {
			return nil, errors.New(`the request has "instances" and "inputs"`)
		}
		var tensors []struct {
			Name     *string `json:"name"`
			Datatype *string `json:"datatype"`
		}
		if json.Unmarshal(other, &tensors) == nil && len(tensors) > 0 && tensors[0].Name != nil && tensors[0].Datatype != nil {
			return nil, nil
		}
		raw, ok = other, true
	}
	if !ok {
		return nil, errors.New(`the request has neither "instances" nor "inputs"`)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil || len(list) == 0 {
		return nil, errors.New("the rows are no list, or an empty one")
	}
	r := start(ports)
	for i, row := range list {
		values := map[string]json.RawMessage{}
		switch {
		case row[0] == '{':
			if err := json.Unmarshal(row, &values); err != nil {
				return nil, fmt.Errorf("row %d: %w", i, err)
			}
		case len(ports) == 1:
			values[ports[0].Name] = row
		default:
			return nil, fmt.Errorf("row %d: the model has %d inputs, so a row is an object of their names", i, len(ports))
		}
		if err := r.add(values, ports); err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
	}
	return r, nil
}

// readCSV reads rows without a header. Their columns are those of the only input, or one for each input in the model's order.
func readCSV(body []byte, ports []port) (*rows, error) {
	cr := csv.NewReader(bytes.NewReader(body))
	cr.TrimLeadingSpace = true
	lines, err := cr.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("CSV: %w", err)
	}
	if len(lines) == 0 {
		return nil, errors.New("CSV: there is no row")
	}
	r := start(ports)
	for i, line := range lines {
		values := map[string]json.RawMessage{}
		var cells []json.RawMessage
		for j, cell := range line {
			p := ports[0]
			if len(ports) > 1 {
				if len(line) != len(ports) {
					return nil, fmt.Errorf("row %d has %d columns, the model %d inputs", i, len(line), len(ports))
				}
				p = ports[j]
			}
			v, err := literal(strings.TrimSpace(cell), p.Datatype)
			if err != nil {
				return nil, fmt.Errorf("row %d, column %d: %w", i, j, err)
			}
			cells = append(cells, v)
		}
		if len(ports) == 1 {
			b := cells[0]
			if len(ports[0].Shape) != 1 || len(cells) != 1 {
				if b, err = json.Marshal(cells); err != nil {
					return nil, err
				}
			}
			values[ports[0].Name] = b
		} else {
			for j, p := range ports {
				values[p.Name] = cells[j]
			}
		}
		if err := r.add(values, ports); err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
	}
	return r, nil
}

// literal is a cell as a JSON value.
func literal(cell, datatype string) (json.RawMessage, error) {
	switch datatype {
	case "BYTES":
		return json.Marshal(cell)
	case "BOOL":
		v, err := strconv.ParseBool(cell)
		return json.RawMessage(strconv.FormatBool(v)), err
	}
	if !json.Valid([]byte(cell)) || cell[0] != '-' && (cell[0] < '0' || cell[0] > '9') {
		v, err := strconv.ParseFloat(cell, 64) // 1., .5, +2
		if err != nil {
			return nil, fmt.Errorf("%q is no number", cell)
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("%q is no finite number", cell)
		}
		return b, nil
	}
	return json.RawMessage(cell), nil
}

func start(ports []port) *rows {
	r := &rows{}
	for _, p := range ports {
		r.inputs = append(r.inputs, tensor{Name: p.Name, Datatype: p.Datatype})
	}
	return r
}

// add appends a row.
func (r *rows) add(values map[string]json.RawMessage, ports []port) error {
	for name := range values {
		if !slices.ContainsFunc(ports, func(p port) bool { return p.Name == name }) {
			return fmt.Errorf("the model has no input %q", name)
		}
	}
	for i, p := range ports {
		v, ok := values[p.Name]
		if !ok {
			return fmt.Errorf("input %q is missing", p.Name)
		}
		in := &r.inputs[i]
		had := len(in.Data)
		shape, err := flatten(v, &in.Data, 0)
		if err != nil {
			return fmt.Errorf("input %q: %w", p.Name, err)
		}
		if len(p.Shape) == len(shape)+2 && p.Shape[len(p.Shape)-1] == 1 { // a column: [rows, 1]
			shape = append(shape, 1)
		}
		if len(p.Shape) > 0 && len(p.Shape) != len(shape)+1 {
			return fmt.Errorf("input %q: a row has %d dimensions, the model's %d", p.Name, len(shape), len(p.Shape)-1)
		}
		if had == 0 && r.n == 0 {
			in.Shape = append([]int64{0}, shape...)
		} else if !slices.Equal(in.Shape[1:], shape) {
			return fmt.Errorf("input %q has shape %v, that of the rows before is %v", p.Name, shape, in.Shape[1:])
		}
		in.Shape[0] = r.n + 1
	}
	r.n++
	return nil
}

// flatten appends the values of nested lists and gives their shape.
func flatten(v json.RawMessage, to *[]json.RawMessage, depth int) ([]int64, error) {
	if v[0] != '[' {
		if v[0] == '{' || string(v) == "null" {
			return nil, fmt.Errorf("%.20s is no value of a tensor", v)
		}
		*to = append(*to, v)
		return nil, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("lists nest deeper than %d", maxDepth)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(v, &list); err != nil {
		return nil, err
	}
	var inner []int64
	for i, x := range list {
		s, err := flatten(x, to, depth+1)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			inner = s
		} else if !slices.Equal(s, inner) {
			return nil, errors.New("its lists have different lengths")
		}
	}
	return append([]int64{int64(len(list))}, inner...), nil
}

// answer turns the protocol's answer into {"predictions": [...]}, a row each, or into lines of CSV.
func (r *rows) answer(body []byte, asCSV bool) ([]byte, string, error) {
	var res struct {
		Outputs []tensor `json:"outputs"`
	}
	if err := json.Unmarshal(body, &res); err != nil {
		return nil, "", fmt.Errorf("the answer: %w", err)
	}
	var lines bytes.Buffer
	var predictions []json.RawMessage
	for i := range r.n {
		values := map[string]json.RawMessage{}
		var cells []string
		for _, o := range res.Outputs {
			if len(o.Shape) == 0 || o.Shape[0] != r.n || count(o.Shape) != int64(len(o.Data)) {
				return nil, "", fmt.Errorf("output %q has shape %v: no row for each of %d; ask with the Open Inference Protocol", o.Name, o.Shape, r.n)
			}
			size := int64(len(o.Data)) / r.n
			row := o.Data[i*size : (i+1)*size]
			if asCSV {
				for _, v := range row {
					cells = append(cells, cell(v))
				}
				continue
			}
			var b bytes.Buffer
			nest(&b, row, o.Shape[1:])
			values[o.Name] = b.Bytes()
		}
		if asCSV {
			w := csv.NewWriter(&lines)
			if err := w.Write(cells); err != nil {
				return nil, "", err
			}
			w.Flush()
			continue
		}
		if len(res.Outputs) == 1 {
			predictions = append(predictions, values[res.Outputs[0].Name])
			continue
		}
		b, err := json.Marshal(values)
		if err != nil {
			return nil, "", err
		}
		predictions = append(predictions, b)
	}
	if asCSV {
		return lines.Bytes(), "text/csv", nil
	}
	b, err := json.Marshal(map[string]any{"predictions": predictions})
	return append(b, '\n'), "application/json", err
}

// count is how many values a shape has.
func count(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n
}

func cell(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// nest writes flat values as nested lists of the shape.
func nest(b *bytes.Buffer, vs []json.RawMessage, shape []int64) {
	if len(shape) == 0 {
		b.Write(vs[0])
		return
	}
	b.WriteByte('[')
	for i := range shape[0] {
		if i > 0 {
			b.WriteByte(',')
		}
		step := int64(len(vs)) / shape[0]
		nest(b, vs[i*step:(i+1)*step], shape[1:])
	}
	b.WriteByte(']')
}

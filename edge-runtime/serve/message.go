package serve

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/oip"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// messageParams reads the parameters that mean something here.
func messageParams(m map[string]*oip.InferParameter) (p params, err error) {
	switch v := m["sequence_id"].GetParameterChoice().(type) {
	case nil:
	case *oip.InferParameter_StringParam:
		p.sequence = v.StringParam
	case *oip.InferParameter_Int64Param:
		if v.Int64Param != 0 {
			p.sequence = strconv.FormatUint(uint64(v.Int64Param), 10) // Triton's ids are unsigned, and its clients send them so
		}
	case *oip.InferParameter_Uint64Param:
		if v.Uint64Param != 0 {
			p.sequence = strconv.FormatUint(v.Uint64Param, 10)
		}
	default:
		return p, errors.New("parameter sequence_id is neither a text nor a whole number")
	}
	for name, to := range map[string]*bool{"sequence_start": &p.start, "sequence_end": &p.end} {
		switch v := m[name].GetParameterChoice().(type) {
		case nil:
		case *oip.InferParameter_BoolParam:
			*to = v.BoolParam
		default:
			return p, diag.Errorf("parameter %s is neither true nor false", name)
		}
	}
	switch v := m["timeout"].GetParameterChoice().(type) {
	case nil:
	case *oip.InferParameter_Int64Param:
		if v.Int64Param < 0 {
			return p, errors.New("parameter timeout is negative")
		}
		p.timeout = microseconds(uint64(v.Int64Param))
	case *oip.InferParameter_Uint64Param:
		p.timeout = microseconds(v.Uint64Param)
	default:
		return p, errors.New("parameter timeout is no number of microseconds")
	}
	return p, p.check()
}

// decodeMessage reads the tensors of a gRPC request against a model's interface. Raw ones are not copied.
func decodeMessage(m *oip.ModelInferRequest, ports *codecPorts) (*request, error) {
	req := newRequest(ports)
	req.id, req.hasID = m.GetId(), m.GetId() != ""
	if p, err := messageParams(m.GetParameters()); err == nil {
		req.session = p.sequence
	}
	raw := m.GetRawInputContents()
	req.typed = len(raw) == 0 && len(m.GetInputs()) > 0
	if len(raw) > 0 && len(raw) != len(m.GetInputs()) {
		return nil, diag.Errorf("there are %d raw_input_contents for %d inputs", len(raw), len(m.GetInputs()))
	}
	for i, in := range m.GetInputs() {
		n, err := req.claim(ports, in.GetName())
		if err != nil {
			return nil, err
		}
		var t engine.Tensor
		switch {
		case len(raw) == 0:
			t, err = decodeContents(&ports.inputs[n], in)
		case in.GetContents() != nil:
			err = errors.New("it has contents, and the request has raw_input_contents")
		default:
			t, err = decodeBytes(&ports.inputs[n], in.GetDatatype(), in.GetShape(), raw[i])
		}
		if err != nil {
			return nil, diag.Errorf("input %q: %w", in.GetName(), err)
		}
		req.inputs[n] = t
	}
	if err := req.complete(ports); err != nil {
		return nil, err
	}
	for _, o := range m.GetOutputs() {
		if err := req.want(ports, o.GetName(), true); err != nil {
			return nil, err
		}
	}
	if len(m.GetOutputs()) == 0 {
		req.wantAll(ports, true)
	}
	return req, nil
}

// decodeContents reads a tensor from the field of its datatype.
func decodeContents(p *artifact.Port, in *oip.ModelInferRequest_InferInputTensor) (engine.Tensor, error) {
	t, n, optional, err := tensorPort(p, in.GetDatatype(), in.GetShape())
	if err != nil {
		return t, err
	}
	c := in.GetContents()
	le := binary.LittleEndian
	have := -1
	fields := len(c.GetBoolContents()) + len(c.GetIntContents()) + len(c.GetInt64Contents()) + len(c.GetUintContents()) +
		len(c.GetUint64Contents()) + len(c.GetFp32Contents()) + len(c.GetFp64Contents()) + len(c.GetBytesContents())
	bits := t.DType.Bits()
	var b []byte
	switch t.DType {
	case abi.Bool:
		have = len(c.GetBoolContents())
		b = make([]byte, have)
		for i, v := range c.GetBoolContents() {
			if v {
				b[i] = 1
			}
		}
	case abi.I8, abi.I16, abi.I32:
		have = len(c.GetIntContents())
		for _, v := range c.GetIntContents() {
			if v<<(32-bits)>>(32-bits) != v {
				return t, diag.Errorf("%d is out of the range of %s", v, t.DType)
			}
			b = appendWord(b, uint64(v), bits)
		}
	case abi.U8, abi.U16, abi.U32:
		have = len(c.GetUintContents())
		for _, v := range c.GetUintContents() {
			if v<<(32-bits)>>(32-bits) != v {
				return t, diag.Errorf("%d is out of the range of %s", v, t.DType)
			}
			b = appendWord(b, uint64(v), bits)
		}
	case abi.I64:
		have = len(c.GetInt64Contents())
		for _, v := range c.GetInt64Contents() {
			b = le.AppendUint64(b, uint64(v))
		}
	case abi.U64:
		have = len(c.GetUint64Contents())
		for _, v := range c.GetUint64Contents() {
			b = le.AppendUint64(b, v)
		}
	case abi.F32:
		have = len(c.GetFp32Contents())
		for _, v := range c.GetFp32Contents() {
			b = le.AppendUint32(b, math.Float32bits(v))
		}
	case abi.F64:
		have = len(c.GetFp64Contents())
		for _, v := range c.GetFp64Contents() {
			b = le.AppendUint64(b, math.Float64bits(v))
		}
	case abi.String:
		have = len(c.GetBytesContents())
		t.Strings = make([]string, have)
		for i, v := range c.GetBytesContents() {
			t.Strings[i] = string(v)
		}
	default:
		return t, diag.Errorf("contents have no field for %s: send it in raw_input_contents", in.GetDatatype())
	}
	if have != fields {
		return t, diag.Errorf("contents have elements in another field than that of %s", in.GetDatatype())
	}
	if int64(have) != n {
		return t, diag.Errorf("contents have %d elements, shape %s needs %d", have, engine.ShapeString(t.Shape), n)
	}
	t.Data = b
	return whole(t, optional), nil
}

// appendWord appends the low bits (8, 16 or 32) of v.
func appendWord(b []byte, v uint64, bits int) []byte {
	for i := 0; i < bits; i += 8 {
		b = append(b, byte(v>>i))
	}
	return b
}

// encodeMessage makes the answer: typed contents when the request had them and every output has a field for its type, raw
// ones otherwise. Raw ones share the memory of the outputs.
func encodeMessage(sl *slot, req *request, outs []engine.Tensor) (*oip.ModelInferResponse, error) {
	i := sl.model.Runner.Interface()
	res := &oip.ModelInferResponse{
		ModelName: sl.name, ModelVersion: i.Version, Id: req.id,
		Parameters: map[string]*oip.InferParameter{"digest": textParam(sl.Digest())},
	}
	if req.session != "" {
		res.Parameters["sequence_id"] = textParam(req.session)
	}
	typed := req.typed
	for _, o := range req.outputs {
		t := &outs[o.output]
		typed = typed && (t.Kind != abi.Tensor || t.DType != abi.F16 && t.DType != abi.BF16)
	}
	for _, o := range req.outputs {
		t := &outs[o.output]
		out := &oip.ModelInferResponse_InferOutputTensor{Name: i.Outputs[o.output].Name, Shape: t.Shape}
		if t.Kind != abi.Tensor {
			text, err := appendValue(nil, t)
			if err != nil {
				return nil, diag.Errorf("output %q: %w", out.Name, err)
			}
			out.Parameters = map[string]*oip.InferParameter{"content_type": textParam("application/json")}
			t = &engine.Tensor{DType: abi.String, Shape: []int64{1}, Strings: []string{string(text)}}
			out.Shape = t.Shape
		}
		info, ok := t.DType.Info()
		if !ok || info.OIP == "" {
			return nil, diag.Errorf("output %q: the protocol has no datatype for %s", out.Name, t.DType)
		}
		out.Datatype = info.OIP
		if typed {
			out.Contents = encodeContents(t)
		} else {
			res.RawOutputContents = append(res.RawOutputContents, encodeBytes(t))
		}
		res.Outputs = append(res.Outputs, out)
	}
	return res, nil
}

func textParam(s string) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_StringParam{StringParam: s}}
}

// encodeContents puts a tensor's elements into the field of its datatype.
func encodeContents(t *engine.Tensor) *oip.InferTensorContents {
	c := &oip.InferTensorContents{}
	le := binary.LittleEndian
	d := t.Data
	switch t.DType {
	case abi.String:
		for _, s := range t.Strings {
			c.BytesContents = append(c.BytesContents, []byte(s))
		}
	case abi.Bool:
		for _, v := range d {
			c.BoolContents = append(c.BoolContents, v != 0)
		}
	case abi.I8:
		for _, v := range d {
			c.IntContents = append(c.IntContents, int32(int8(v)))
		}
	case abi.U8:
		for _, v := range d {
			c.UintContents = append(c.UintContents, uint32(v))
		}
	case abi.I16:
		for i := 0; i < len(d); i += 2 {
			c.IntContents = append(c.IntContents, int32(int16(le.Uint16(d[i:]))))
		}
	case abi.U16:
		for i := 0; i < len(d); i += 2 {
			c.UintContents = append(c.UintContents, uint32(le.Uint16(d[i:])))
		}
	case abi.I32:
		for i := 0; i < len(d); i += 4 {
			c.IntContents = append(c.IntContents, int32(le.Uint32(d[i:])))
		}
	case abi.U32:
		for i := 0; i < len(d); i += 4 {
			c.UintContents = append(c.UintContents, le.Uint32(d[i:]))
		}
	case abi.F32:
		for i := 0; i < len(d); i += 4 {
			c.Fp32Contents = append(c.Fp32Contents, math.Float32frombits(le.Uint32(d[i:])))
		}
	case abi.I64:
		for i := 0; i < len(d); i += 8 {
			c.Int64Contents = append(c.Int64Contents, int64(le.Uint64(d[i:])))
		}
	case abi.U64:
		for i := 0; i < len(d); i += 8 {
			c.Uint64Contents = append(c.Uint64Contents, le.Uint64(d[i:]))
		}
	case abi.F64:
		for i := 0; i < len(d); i += 8 {
			c.Fp64Contents = append(c.Fp64Contents, math.Float64frombits(le.Uint64(d[i:])))
		}
	}
	return c
}

package build_test

import (
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/encoding/protowire"
)

// message names the fields of a protobuf message of onnx.proto that hold messages themselves; what is not listed is a
// string, bytes or a number.
type message map[protowire.Number]*message

// modelMessage is ModelProto, as far as mutations need to know it.
func modelMessage() *message {
	dim := &message{}
	shape := &message{1: dim}
	tensorType := &message{2: shape}
	typ := &message{}
	*typ = message{1: tensorType, 4: {1: typ}, 5: {2: typ}, 8: tensorType, 9: {1: typ}}
	info := &message{2: typ}
	entry := &message{}
	tensor := &message{13: entry}
	sparse := &message{1: tensor, 2: tensor}
	graph, node := &message{}, &message{}
	attr := &message{5: tensor, 6: graph, 10: tensor, 11: graph, 14: typ, 15: typ, 22: sparse, 23: sparse}
	*node = message{5: attr}
	*graph = message{1: node, 5: tensor, 11: info, 12: info, 13: info, 15: sparse}
	opset := &message{}
	function := &message{7: node, 9: opset, 11: attr, 12: info}
	return &message{7: graph, 8: opset, 14: entry, 25: function}
}

// pfield is one field of a decoded message.
type pfield struct {
	num protowire.Number
	typ protowire.Type
	u   uint64
	b   []byte
	sub *pmessage
}

type pmessage struct{ fields []*pfield }

// decode reads a well-formed message; ok is false for others.
func decode(b []byte, m *message) (_ *pmessage, ok bool) {
	p := &pmessage{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		f := &pfield{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			f.u, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			f.u = uint64(v)
		case protowire.Fixed64Type:
			f.u, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			f.b, n = protowire.ConsumeBytes(b)
			if sub := (*m)[num]; sub != nil && n >= 0 {
				if f.sub, ok = decode(f.b, sub); !ok {
					return nil, false
				}
			}
		default:
			return nil, false
		}
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		p.fields = append(p.fields, f)
	}
	return p, true
}

func (p *pmessage) encode(b []byte) []byte {
	for _, f := range p.fields {
		b = protowire.AppendTag(b, f.num, f.typ)
		switch f.typ {
		case protowire.VarintType:
			b = protowire.AppendVarint(b, f.u)
		case protowire.Fixed32Type:
			b = protowire.AppendFixed32(b, uint32(f.u))
		case protowire.Fixed64Type:
			b = protowire.AppendFixed64(b, f.u)
		case protowire.BytesType:
			v := f.b
			if f.sub != nil {
				v = f.sub.encode(nil)
			}
			b = protowire.AppendBytes(b, v)
		}
	}
	return b
}

// place is a field and the message that holds it.
type place struct {
	in *pmessage
	at int
}

func (p *pmessage) places(all []place, strs [][]byte) ([]place, [][]byte) {
	for i, f := range p.fields {
		all = append(all, place{p, i})
		if f.sub != nil {
			all, strs = f.sub.places(all, strs)
		} else if f.typ == protowire.BytesType && len(f.b) < 64 {
			strs = append(strs, f.b)
		}
	}
	return all, strs
}

// mutate changes n fields of an ONNX model so that it stays decodable protobuf: numbers to awkward ones, names to other
// names of the model, fields removed, doubled, swapped, and bytes of data cut or turned. It gives nil when b is no model.
func mutate(r *rand.Rand, b []byte, n int) []byte {
	p, ok := decode(b, modelMessage())
	if !ok {
		return nil
	}
	ints := []uint64{0, 1, 2, 3, 7, 8, 16, 17, 255, 256, 65536, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 + 1, 1 << 62, math.MaxInt64, 1 << 63, math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64 - 2}
	floats := []float64{0, math.Copysign(0, -1), 1, -1, 0.5, 1e-45, 3e38, math.Inf(1), math.Inf(-1), math.NaN(), 1e30, -1e-30}
	for range n {
		all, strs := p.places(nil, nil)
		if len(all) == 0 {
			break
		}
		at := all[r.IntN(len(all))]
		f := *at.in.fields[at.at]
		switch k := r.IntN(10); {
		case k == 0: // remove
			at.in.fields = append(append([]*pfield(nil), at.in.fields[:at.at]...), at.in.fields[at.at+1:]...)
			continue
		case k == 1: // double
			at.in.fields = append(at.in.fields, &f)
			continue
		case k == 2: // swap with a neighbour of the same message
			j := r.IntN(len(at.in.fields))
			at.in.fields[at.at], at.in.fields[j] = at.in.fields[j], at.in.fields[at.at]
			continue
		case f.typ == protowire.VarintType:
			switch r.IntN(3) {
			case 0:
				f.u++
			case 1:
				f.u--
			default:
				f.u = ints[r.IntN(len(ints))]
			}
		case f.typ == protowire.Fixed32Type:
			f.u = uint64(math.Float32bits(float32(floats[r.IntN(len(floats))])))
		case f.typ == protowire.Fixed64Type:
			f.u = math.Float64bits(floats[r.IntN(len(floats))])
		case f.sub != nil: // take another message of the same kind's place
			var same []*pfield
			for _, q := range all {
				if g := q.in.fields[q.at]; g.num == f.num && g.sub != nil && g.sub != f.sub && len(g.b) < 1<<12 && q.in != f.sub {
					same = append(same, g)
				}
			}
			if len(same) == 0 {
				continue
			}
			g := same[r.IntN(len(same))]
			c, ok := decodeLike(g)
			if !ok {
				continue
			}
			f.sub = c
		case len(f.b) < 64 && r.IntN(2) == 0 && len(strs) > 0:
			f.b = strs[r.IntN(len(strs))]
		default:
			c := append([]byte(nil), f.b...)
			if len(c) > 0 {
				switch r.IntN(3) {
				case 0:
					c = c[:r.IntN(len(c))]
				case 1:
					c[r.IntN(len(c))] ^= 1 << r.IntN(8)
				default:
					c = append(c, c[:r.IntN(len(c))]...)
				}
			}
			f.b = c
		}
		at.in.fields[at.at] = &f
	}
	return p.encode(nil)
}

// decodeLike copies a message field.
func decodeLike(f *pfield) (*pmessage, bool) {
	c := &pmessage{}
	for _, x := range f.sub.fields {
		y := *x
		if x.sub != nil {
			s, ok := decodeLike(x)
			if !ok {
				return nil, false
			}
			y.sub = s
		}
		c.fields = append(c.fields, &y)
	}
	return c, true
}

package interp

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
)

// recurrent runs RNN, GRU and LSTM by docs/numerics.md section 3.1.
func (c *call) recurrent() ([]*tensor, error) {
	switch c.t(0).dt {
	case ir.F32:
		return runCells(c, func(t *tensor) []float32 { return t.f32 }, activate32)
	case ir.F64:
		return runCells(c, func(t *tensor) []float64 { return t.f64 }, activate64)
	}
	return nil, c.unsupported(c.t(0).dt.String())
}

// activation is a named function with its parameters.
type activation[T float32 | float64] func(name string, alpha, beta, x T) (T, bool)

func activate32(name string, alpha, beta, x float32) (float32, bool) {
	switch name {
	case "Sigmoid":
		return sigmoid32(x), true
	case "Tanh":
		return tanh32(x), true
	case "Elu":
		if x < 0 {
			return mul(alpha, exp32(x)-1), true
		}
		return x, true
	case "Softplus":
		r := x
		if x < 0 {
			r = 0
		}
		return r + log32(1+exp32(-abs32(x))), true
	case "Softsign":
		return x / (1 + abs32(x)), true
	case "ScaledTanh":
		return mul(alpha, tanh32(mul(beta, x))), true
	}
	return simpleActivation(name, alpha, beta, x)
}

func activate64(name string, alpha, beta, x float64) (float64, bool) {
	switch name {
	case "Sigmoid":
		return sigmoid64(x), true
	case "Tanh":
		return tanh64(x), true
	case "Elu":
		if x < 0 {
			return mul64(alpha, exp64(x)-1), true
		}
		return x, true
	case "Softplus":
		r := x
		if x < 0 {
			r = 0
		}
		return r + log64(1+exp64(-abs64(x))), true
	case "Softsign":
		return x / (1 + abs64(x)), true
	case "ScaledTanh":
		return mul64(alpha, tanh64(mul64(beta, x))), true
	}
	return simpleActivation(name, alpha, beta, x)
}

func simpleActivation[T float32 | float64](name string, alpha, beta, x T) (T, bool) {
	switch name {
	case "Relu":
		if x < 0 {
			return 0, true
		}
		return x, true
	case "LeakyRelu":
		if x < 0 {
			return T(alpha * x), true
		}
		return x, true
	case "ThresholdedRelu":
		if x > alpha {
			return x, true
		}
		return 0, true
	case "HardSigmoid":
		return pmin(pmax(T(alpha*x)+beta, 0), 1), true
	case "Affine":
		return T(alpha*x) + beta, true
	}
	return 0, false
}

func runCells[T float32 | float64](c *call, get func(*tensor) []T, act activation[T]) ([]*tensor, error) {
	x, w, r := c.t(0), c.t(1), c.t(2)
	if len(x.dims) != 3 || len(w.dims) != 3 || len(r.dims) != 3 {
		return nil, fmt.Errorf("X of %v, W of %v, R of %v", x.dims, w.dims, r.dims)
	}
	seq, batch, in, hid := int(x.dims[0]), int(x.dims[1]), int(x.dims[2]), int(c.n.Int("hidden_size"))
	gates := map[string]int{"RNN": 1, "GRU": 3, "LSTM": 4}[c.n.Op]
	dirs := 1
	if c.n.Str("direction") == "bidirectional" {
		dirs = 2
	}
	want := func(i int, dims ...int) error {
		t := c.t(i)
		if t == nil {
			return nil
		}
		ok := len(t.dims) == len(dims)
		for k := 0; ok && k < len(dims); k++ {
			ok = t.dims[k] == int64(dims[k])
		}
		if !ok {
			return fmt.Errorf("input %d has dims %v, want %v", i, t.dims, dims)
		}
		return nil
	}
	for _, err := range []error{want(1, dirs, gates*hid, in), want(2, dirs, gates*hid, hid), want(3, dirs, 2*gates*hid), want(4, batch),
		want(5, dirs, batch, hid), want(6, dirs, batch, hid), want(7, dirs, 3*hid)} {
		if err != nil {
			return nil, err
		}
	}
	y, err := alloc(x.dt, []int64{int64(seq), int64(dirs), int64(batch), int64(hid)})
	if err != nil {
		return nil, err
	}
	yh, _ := alloc(x.dt, []int64{int64(dirs), int64(batch), int64(hid)})
	yc, _ := alloc(x.dt, yh.dims)
	for d := 0; d < dirs; d++ {
		cell := &cell[T]{c: c, act: act, in: in, hid: hid, gates: gates,
			w: get(w)[d*gates*hid*in:], r: get(r)[d*gates*hid*hid:], clip: T(c.n.Float("clip")), first: d * len(c.n.Strs("activations")) / dirs}
		if b := c.t(3); b != nil {
			cell.b = get(b)[d*2*gates*hid:]
		}
		if p := c.t(7); p != nil {
			cell.p = get(p)[d*3*hid:]
		}
		for n := 0; n < batch; n++ {
			h, cs := make([]T, hid), make([]T, hid)
			if t := c.t(5); t != nil {
				copy(h, get(t)[(d*batch+n)*hid:])
			}
			if t := c.t(6); t != nil {
				copy(cs, get(t)[(d*batch+n)*hid:])
			}
			steps := seq
			if t := c.t(4); t != nil {
				if steps = int(t.ints[n]); steps < 0 || steps > seq {
					return nil, fmt.Errorf("sequence length %d of %d", steps, seq)
				}
			}
			for s := 0; s < steps; s++ {
				at := s
				if d == 1 || c.n.Str("direction") == "reverse" {
					at = steps - 1 - s
				}
				if err := cell.step(get(x)[(at*batch+n)*in:], h, cs); err != nil {
					return nil, err
				}
				copy(get(y)[((at*dirs+d)*batch+n)*hid:], h)
			}
			copy(get(yh)[(d*batch+n)*hid:], h)
			copy(get(yc)[(d*batch+n)*hid:], cs)
		}
	}
	if c.n.Op == "LSTM" {
		return []*tensor{y, yh, yc}, nil
	}
	return []*tensor{y, yh}, nil
}

type cell[T float32 | float64] struct {
	c              *call
	act            activation[T]
	in, hid, gates int
	w, r, b, p     []T
	clip           T
	first          int // index of this direction's first activation
}

// gate is the pre-activation of unit j of gate g, without peepholes.
func (k *cell[T]) gate(x, h []T, g, j int) T {
	var acc T
	row := g*k.hid + j
	for i := 0; i < k.in; i++ {
		acc += T(x[i] * k.w[row*k.in+i])
	}
	for i := 0; i < k.hid; i++ {
		acc += T(h[i] * k.r[row*k.hid+i])
	}
	return k.bias(acc, row)
}

func (k *cell[T]) bias(acc T, row int) T {
	if k.b != nil {
		acc += k.b[row] + k.b[k.gates*k.hid+row]
	}
	return acc
}

// apply clips and runs activation f of this direction.
func (k *cell[T]) apply(f int, v T) (T, error) {
	if k.clip > 0 {
		v = pmin(pmax(v, -k.clip), k.clip)
	}
	return k.raw(f, v)
}

func (k *cell[T]) raw(f int, v T) (T, error) {
	i := k.first + f
	name := k.c.n.Strs("activations")[i]
	out, ok := k.act(name, T(k.c.n.Floats("activation_alpha")[i]), T(k.c.n.Floats("activation_beta")[i]), v)
	if !ok {
		return 0, k.c.unsupported("activation " + name)
	}
	return out, nil
}

// step advances the hidden state h, and c of an LSTM, by one input.
func (k *cell[T]) step(x, h, c []T) error {
	switch k.c.n.Op {
	case "LSTM":
		return k.lstm(x, h, c)
	case "GRU":
		return k.gru(x, h)
	}
	next := make([]T, k.hid)
	for j := range next {
		v, err := k.apply(0, k.gate(x, h, 0, j))
		if err != nil {
			return err
		}
		next[j] = v
	}
	copy(h, next)
	return nil
}

func (k *cell[T]) lstm(x, h, c []T) error {
	next := make([]T, k.hid)
	peep := func(v T, which, j int, c T) T {
		if k.p != nil {
			v += T(k.p[which*k.hid+j] * c)
		}
		return v
	}
	for j := range next {
		i, err := k.apply(0, peep(k.gate(x, h, 0, j), 0, j, c[j]))
		if err != nil {
			return err
		}
		f := 1 - i
		if k.c.n.Int("input_forget") == 0 {
			if f, err = k.apply(0, peep(k.gate(x, h, 2, j), 2, j, c[j])); err != nil {
				return err
			}
		}
		g, err := k.apply(1, k.gate(x, h, 3, j))
		if err != nil {
			return err
		}
		c[j] = T(f*c[j]) + T(i*g)
		o, err := k.apply(0, peep(k.gate(x, h, 1, j), 1, j, c[j]))
		if err != nil {
			return err
		}
		hc, err := k.raw(2, c[j])
		if err != nil {
			return err
		}
		next[j] = T(o * hc)
	}
	copy(h, next)
	return nil
}

func (k *cell[T]) gru(x, h []T) error {
	z, r, next := make([]T, k.hid), make([]T, k.hid), make([]T, k.hid)
	var err error
	for j := range z {
		if z[j], err = k.apply(0, k.gate(x, h, 0, j)); err != nil {
			return err
		}
		if r[j], err = k.apply(0, k.gate(x, h, 1, j)); err != nil {
			return err
		}
	}
	for j := range next {
		row := 2*k.hid + j
		var acc T
		for i := 0; i < k.in; i++ {
			acc += T(x[i] * k.w[row*k.in+i])
		}
		if k.c.n.Int("linear_before_reset") == 0 {
			for i := 0; i < k.hid; i++ {
				acc += T(T(r[i]*h[i]) * k.r[row*k.hid+i])
			}
			acc = k.bias(acc, row)
		} else {
			var b T
			for i := 0; i < k.hid; i++ {
				b += T(h[i] * k.r[row*k.hid+i])
			}
			if k.b != nil {
				acc += k.b[row]
				b += k.b[k.gates*k.hid+row]
			}
			acc += T(r[j] * b)
		}
		ht, err := k.apply(1, acc)
		if err != nil {
			return err
		}
		next[j] = T((1-z[j])*ht) + T(z[j]*h[j])
	}
	copy(h, next)
	return nil
}

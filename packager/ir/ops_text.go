package ir

import "fmt"

// Text operators. Strings are UTF-8; an invalid byte counts as one character of its own.

func textOps() []OpDef {
	return []OpDef{
		{Name: "StringNormalizer", Doc: "X [C] or [1,C]: removes the elements that equal a stopword (both lower-cased for is_case_sensitive 0), then " +
			"changes case (case_change_action NONE, LOWER, UPPER) by Unicode's simple mapping of each code point. If nothing " +
			"remains the result is one empty string. Without stopwords nothing is removed, and X may have any shape.",
			Ins: params("X"), Outs: params("Y"), infer: inferStringNormalizer,
			Attrs: []AttrDef{attr("case_change_action", "NONE"), attr("is_case_sensitive", 0), attr("stopwords", []string{})}},
		{Name: "ms.Tokenizer", Doc: "X [C] or [N,C] to [..., D], D the largest number of tokens, shorter rows padded with pad_value. With tokenexp: the " +
			"leftmost-first, non-overlapping, not empty matches of the RE2 expression. With separators (RE2 expressions too): the text is cut " +
			"at each leftmost match of any, earlier ones tried first; one empty separator splits into characters. Tokens of fewer than mincharnum " +
			"characters are dropped. mark=1 puts the tokens \\x02 and \\x03 around each row's.",
			Ins: params("X"), Outs: params("Y"), infer: inferTokenizer,
			Attrs: []AttrDef{attr("mark", 0), need("pad_value", AttrString), attr("mincharnum", 1), attr("separators", []string{}),
				attr("tokenexp", "")}},
		{Name: "TfIdfVectorizer", Doc: "X [C] or [N,C] (i64 or string) to f32 [M] or [N,M], M = max(ngram_indexes)+1. Counts the n-grams of " +
			"min_gram_length to max_gram_length items with 0 to max_skip_count skipped between neighbours (1-grams: no skips) " +
			"that stand in pool; ngram_counts[n-1] is where the n-grams start in pool; ngram_indexes[j] is the output column of the " +
			"j-th n-gram. TF: the count; IDF: weights[j] where it is above 0; TFIDF: count * weights[j]. weights has one f32 per n-gram.",
			Ins: params("X"), Outs: params("Y"), infer: inferTfIdf,
			Attrs: []AttrDef{need("mode", AttrString), need("min_gram_length", AttrInt), need("max_gram_length", AttrInt),
				need("max_skip_count", AttrInt), need("ngram_counts", AttrInts), need("ngram_indexes", AttrInts), need("pool", AttrData),
				need("weights", AttrData)}},
	}
}

func inferStringNormalizer(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, c.dtype(0) == String, "string"); err != nil {
		return err
	}
	switch a := c.n.Str("case_change_action"); a {
	case "NONE", "LOWER", "UPPER":
	default:
		return fmt.Errorf("case_change_action %q", a)
	}
	s := c.shape(0)
	if len(c.n.Strs("stopwords")) > 0 && s.Ranked {
		r := s.Rank()
		if r != 1 && r != 2 || r == 2 && s.Dims[0].IsStatic() && s.Dims[0].N != 1 {
			return fmt.Errorf("X is %s, want [C] or [1,C] where stopwords are removed", s)
		}
		s = s.Clone()
		s.Dims[r-1] = Unknown()
	}
	c.set(0, String, s)
	return nil
}

func inferTokenizer(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	if err := c.want(0, c.dtype(0) == String, "string"); err != nil {
		return err
	}
	if (c.n.Str("tokenexp") == "") == (len(c.n.Strs("separators")) == 0) {
		return fmt.Errorf("exactly one of tokenexp and separators must be given")
	}
	s := c.shape(0)
	if s.Ranked {
		if s.Rank() != 1 && s.Rank() != 2 {
			return fmt.Errorf("X is %s, want rank 1 or 2", s)
		}
		s = ShapeOf(append(s.Clone().Dims, Unknown())...)
	}
	c.set(0, String, s)
	return nil
}

func inferTfIdf(c *inferer) error {
	if err := c.tensors(); err != nil {
		return err
	}
	n := c.n
	pool, w, idx, cnt := n.Data("pool"), n.Data("weights"), n.Ints("ngram_indexes"), n.Ints("ngram_counts")
	if pool.DType != c.dtype(0) || pool.DType != I64 && pool.DType != String || len(pool.Dims) != 1 {
		return fmt.Errorf("X is %s, pool %s", c.dtype(0), pool.Type())
	}
	switch m := n.Str("mode"); m {
	case "TF", "IDF", "TFIDF":
	default:
		return fmt.Errorf("mode %q", m)
	}
	lo, hi := n.Int("min_gram_length"), n.Int("max_gram_length")
	if lo < 1 || hi < lo || hi > int64(len(cnt)) || n.Int("max_skip_count") < 0 || n.Int("max_skip_count") > 1<<20 {
		return fmt.Errorf("gram lengths %d to %d with %d counts, %d skips", lo, hi, len(cnt), n.Int("max_skip_count"))
	}
	grams, prev := int64(0), int64(0)
	for i, b := range cnt {
		end := pool.Len()
		if i+1 < len(cnt) {
			end = cnt[i+1]
		}
		if b < prev || end < b || end > pool.Len() || i == 0 && b != 0 || (end-b)%int64(i+1) != 0 {
			return fmt.Errorf("ngram_counts %v do not cut a pool of %d", cnt, pool.Len())
		}
		grams += (end - b) / int64(i+1)
		prev = b
	}
	if grams != int64(len(idx)) || w.DType != F32 || len(w.Dims) != 1 || w.Len() != grams {
		return fmt.Errorf("%d n-grams with %d indexes and weights %s", grams, len(idx), w.Type())
	}
	cols := int64(0)
	for _, i := range idx {
		if i < 0 || i >= 1<<31 {
			return fmt.Errorf("ngram_indexes has %d", i)
		}
		cols = max(cols, i+1)
	}
	switch s := c.shape(0); s.Rank() {
	case -1:
		c.set(0, F32, s)
	case 1:
		c.set(0, F32, StaticShape(cols))
	case 2:
		c.set(0, F32, ShapeOf(s.Dims[0], Static(cols)))
	default:
		return fmt.Errorf("X is %s, want rank 1 or 2", s)
	}
	return nil
}

package kernel

// Sizes, in bytes, of the scratch that kernels allocate, for the memory plan. A kernel that needs more than is said here takes its
// scratch from the heap, and the plan of a static graph is no longer exact.

// PackedScratch is the scratch of packedWork for rows x cols sums of that many terms.
func PackedScratch(rows, terms, cols int64) int64 {
	blocks, panels := (terms+blockTerms-1)/blockTerms, (cols+PanelCols-1)/PanelCols
	high, each := int64(tileRows), blocks*64+48
	if rows == 1 {
		high, each = 1, blocks*16+8
	}
	per := min(max(unitCost/each, 1), panels)
	return high * (blocks*blockTerms*16 + per*panelBytes)
}

// DepthwiseScratch is the scratch of Depthwise for outputs of oh x ow, kernels of kh x kw, strides and dilations.
func DepthwiseScratch(oh, ow, kh, kw, sh, sw, dh, dw int64) int64 {
	taps, wide := kh*kw, (ow+15)/16*16
	width := wide + (kw-1)*dw/sw + 1
	rows := min(max(dwCost/(wide*(taps+8+sw)/4+20), 1), oh)
	height := (rows-1)*sh + (kh-1)*dh + 1
	return 4 * (height*sw*width + taps*5 + 32)
}

// RecurrentScratch is the number of elements of Recurrent's working row.
func RecurrentScratch(cell Cell, hidden int64) int64 { return hidden * (cellGates[cell] + 3) }

// ResizePlanBytes is the size of ResizePlan's table for that many axes.
func ResizePlanBytes(rank int64) int64 { return rank * rpRow }

// ResizeTapsOf is the number of taps of each output of ResizeTaps, or -1 when it depends on the scale.
func ResizeTapsOf(v Sampler) int64 {
	switch {
	case v.Antialias && !v.nearest():
		return -1
	case v.Mode == SampleLinear:
		return 2
	case v.Mode == SampleCubic:
		return 4
	}
	return 1
}

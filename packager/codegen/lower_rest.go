package codegen

func reduceLowering() map[string]lowerer { return map[string]lowerer{} }
func mlLowering() map[string]lowerer     { return map[string]lowerer{} }
func textLowering() map[string]lowerer   { return map[string]lowerer{} }

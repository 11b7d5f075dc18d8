BfareJ`k§äAù3AN!@”qB{BðcV@ø´AgoŽAgBS6
BH”5B{Ê>&X‚B„6hAJÒ¢AŒÊÒA‰uB=§EADC	Aºô?Ü
BÑ¢:Bï;AáB
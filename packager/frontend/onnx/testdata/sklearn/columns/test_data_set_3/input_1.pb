BfareJ`A‰4B
+@K™2AN®AsO[BÕ ¼AÕ*–?ì.Byš@9¾A³3pAmÌ¨A«™ÝAï¿ÑA²›Ü?÷|BÞ~»A,› AtžkA¥sŸA´oºARR?:_B‹íîA
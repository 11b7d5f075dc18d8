
output_probability2:"Lima"alpha"z√ºrich* J‚w$=Jol?JKó=
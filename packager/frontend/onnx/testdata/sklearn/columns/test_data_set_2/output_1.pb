
output_probability
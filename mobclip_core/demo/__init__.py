"""The demo country: an invented island that writes raw files in the formats real sources come in.

`generate.generate_demo` is the way in. Order of reading: `config`, `land`, `factors`, `zoning`, `world` make the hidden
world; `poi`, `census`, `imagery`, `mobility` are what each modality sees of it; `labels` is the truth to predict;
`files` writes; `generate` puts it together. Nothing is imported here.
"""

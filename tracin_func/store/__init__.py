"""The gradient store: rows of gradients in a folder, written block by block, so that a run that ends early goes on."""

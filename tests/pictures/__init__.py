"""Pictures for the documents: what a person sees, drawn by a browser. Nobody edits them."""

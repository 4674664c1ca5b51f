"""The handbook's own machinery: site, page model, runner, recorder and checks."""

"""What the API promises: routes, the models of what is sent, problems, the OpenAPI document."""

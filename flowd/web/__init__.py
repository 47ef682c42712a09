"""What a browser is sent; knows no other room."""

